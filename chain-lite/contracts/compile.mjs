// Compiles the contracts beside this file and prints their artefacts as JSON on standard output.
//
//   NODE_PATH=target/node/node_modules node chain-lite/contracts/compile.mjs          prints
//   NODE_PATH=target/node/node_modules node chain-lite/contracts/compile.mjs --write  writes artefacts/*.json
//
// The compiler comes from npm (`solc`, pinned in .ci/npm-packages.txt). The settings below are recorded in every
// artefact, as is the SHA-256 hash of the source.

import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

// `createRequire` honours NODE_PATH, `import` does not.
const solc = createRequire(import.meta.url)("solc");
const folder = path.dirname(fileURLToPath(import.meta.url));
const contracts = ["Contributions", "Authorisations"];

const settings = {
  // The last fork that a chain of arbitrators (Clique) runs: no PUSH0, no transient storage.
  evmVersion: "london",
  optimizer: { enabled: true, runs: 10000 },
  metadata: { bytecodeHash: "none", appendCBOR: false },
  outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode", "evm.methodIdentifiers", "storageLayout"] } },
};

const sources = {};
for (const name of contracts) {
  sources[`${name}.sol`] = { content: readFileSync(path.join(folder, `${name}.sol`), "utf8") };
}
const output = JSON.parse(solc.compile(JSON.stringify({ language: "Solidity", sources, settings })));
// A warning is a failure: nothing here needs one.
if (output.errors?.length) {
  for (const error of output.errors) process.stderr.write(error.formattedMessage);
  process.exit(1);
}

const artefacts = {};
for (const name of contracts) {
  const compiled = output.contracts[`${name}.sol`][name];
  artefacts[name] = {
    contract: name,
    compiler: solc.version(),
    settings,
    sourceSha256: createHash("sha256").update(sources[`${name}.sol`].content).digest("hex"),
    abi: compiled.abi,
    methodIdentifiers: compiled.evm.methodIdentifiers,
    storageLayout: layout(compiled.storageLayout),
    bytecode: `0x${compiled.evm.bytecode.object}`,
    deployedBytecode: `0x${compiled.evm.deployedBytecode.object}`,
    immutableReferences: Object.values(compiled.evm.deployedBytecode.immutableReferences ?? {}),
  };
}

if (process.argv.includes("--write")) {
  mkdirSync(path.join(folder, "artefacts"), { recursive: true });
  for (const name of contracts) {
    writeFileSync(path.join(folder, "artefacts", `${name}.json`), text(artefacts[name]));
  }
} else {
  process.stdout.write(text(artefacts));
}

function text(value) {
  return `${JSON.stringify(value, null, 2)}\n`;
}

// What a reader of storage needs: where each variable and each field of a struct is. The compiler numbers types by
// syntax tree, which says nothing.
function layout({ storage, types }) {
  const variable = ({ label, offset, slot, type }) => ({ label, slot: Number(slot), offset, bytes: Number(types[type].numberOfBytes), type: types[type].label });
  const structs = {};
  for (const { label, members } of Object.values(types ?? {})) {
    if (members) structs[label] = members.map(variable);
  }
  return { storage: storage.map(variable), structs };
}
