// Builds trees over days of (day, uid, workload, points) with OpenZeppelin's library, and gives root and proofs of each.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { StandardMerkleTree } = createRequire(import.meta.url)("@openzeppelin/merkle-tree");
const days = JSON.parse(readFileSync(0, "utf8"));
const encoding = ["uint32", "bytes32", "uint128", "uint128"];
process.stdout.write(JSON.stringify(days.map((leaves) => {
  const tree = StandardMerkleTree.of(leaves, encoding);
  return { root: tree.root, proofs: leaves.map((_, index) => tree.getProof(index)) };
})));
