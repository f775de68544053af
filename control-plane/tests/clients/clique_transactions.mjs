// Loaded into the node of npm `@ethereumjs/client` (node --import), whose miner leaves every transaction out of a Clique
// chain: the block that it runs transactions in lacks the signature that tells who gets the fees, and the machine that
// runs contracts is not told how to find the signer. Both are mended here. What is mined the node checks itself, as before.
import { pathToFileURL } from "node:url";

const modules = pathToFileURL(`${process.env.NODE_MODULES}/`);
const { BlockBuilder } = await import(new URL("@ethereumjs/vm/dist/esm/index.js", modules));
const { EVM } = await import(new URL("@ethereumjs/evm/dist/esm/index.js", modules));
const { cliqueSigner, createSealedCliqueBlock } = await import(new URL("@ethereumjs/block/dist/esm/index.js", modules));

const addTransaction = BlockBuilder.prototype.addTransaction;
BlockBuilder.prototype.addTransaction = async function (transaction, options) {
  const header = { ...this.headerData, gasUsed: this.gasUsed };
  const block = { header, transactions: this.transactions };
  this.headerData.extraData = createSealedCliqueBlock(block, this.blockOpts.cliqueSigner, this.blockOpts).header.extraData;
  try {
    return await addTransaction.call(this, transaction, options);
  } finally {
    delete this.headerData.extraData;
  }
};

const runCall = EVM.prototype.runCall;
EVM.prototype.runCall = function (options) {
  this._optsCached.cliqueSigner ??= cliqueSigner;
  return runCall.call(this, options);
};
