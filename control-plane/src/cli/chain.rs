//! `ioex chain`.

use super::Place;
use crate::configuration::chain::Address;
use crate::exit::EXIT_CODES;
use clap::{Args, Subcommand, ValueEnum};

/// `ioex chain`.
#[derive(Args, Debug, Clone)]
pub struct Chain {
    /// What to do
    #[command(subcommand)]
    pub action: ChainAction,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
}

/// What `ioex chain` does.
#[derive(Subcommand, Debug, Clone)]
pub enum ChainAction {
    /// The last verified header of each chain, its age, and what each endpoint was caught at
    Status,
    /// Follow the chains in the foreground, without the rest of the node (`ioex up` does so by itself)
    Follow,
    /// A verified header
    Header {
        /// Which chain
        #[arg(value_name = "CHAIN")]
        chain: ChainName,
        /// Its height, or its hash as explorers show it
        #[arg(value_name = "HEIGHT|HASH")]
        block: String,
    },
    /// Prove that a transaction is in a verified block
    VerifyTx {
        /// Which chain
        #[arg(value_name = "CHAIN")]
        chain: ChainName,
        /// The transaction's hash as explorers show it
        #[arg(value_name = "TXID")]
        txid: String,
    },
    /// An account of the consortium chain, and slots of its storage, proved against the last verified header
    Proof {
        /// The account or contract: 0x and 40 hexadecimal digits
        #[arg(value_name = "ADDRESS")]
        address: Address,
        /// Slots of its storage: a number, or 0x and 64 hexadecimal digits
        #[arg(value_name = "SLOT")]
        slots: Vec<String>,
    },
    /// What an account of the consortium chain has, proved
    Balance {
        /// The account: 0x and 40 hexadecimal digits
        #[arg(value_name = "ADDRESS")]
        address: Address,
    },
    /// GAS points and workload of a node, proved from the contract chain.workload_contract
    Points {
        /// The node's UID
        #[arg(value_name = "UID")]
        account: identity::Uid,
    },
    /// Whether a node may have a content list of a publisher, proved from the contract chain.authorisation_contract
    Authorised {
        /// The node's UID
        #[arg(value_name = "UID")]
        uid: identity::Uid,
        /// The list's hash, as `ioex publish` prints it
        #[arg(value_name = "LIST")]
        list: String,
        /// Whose word counts for the list: the publisher's account, 0x and 40 hexadecimal digits
        #[arg(long, value_name = "ADDRESS")]
        publisher: Address,
    },
}

/// A chain by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ChainName {
    /// The public chain, mined with Bitcoin
    Pow,
    /// The consortium chain of the arbitrators
    Dpos,
}

/// What `ioex chain --help` ends with.
pub(super) fn chain_examples() -> String {
    format!("{CHAIN_EXAMPLES}\n\n{EXIT_CODES}")
}

const CHAIN_EXAMPLES: &str = "\
Nobody is trusted but for the blocks that you name. Turn it on in the configuration, and start the node:
  [chain]
  pow_endpoints = [\"https://a.example/rpc\", \"https://b.example/rpc\"]
  pow_genesis = \"HASH\"
  dpos_endpoints = [\"https://c.example\", \"https://d.example\"]
  dpos_checkpoint = \"NUMBER:0xHASH\"       a recent epoch block, from somebody you trust

Endpoints are other people's nodes. One that is honest is enough: what the others say falsely is caught, and \
`ioex chain status` names who was caught at what.

Examples:
  ioex chain status
  ioex chain header pow 123456
  ioex chain verify-tx pow TXID
  ioex chain balance 0x52908400098527886E0F7030069857D2E4169EE7
  ioex chain proof 0x52908400098527886E0F7030069857D2E4169EE7 0 --json | jq -r '.slots[0].value'
  ioex chain points UID
  ioex chain authorised UID LIST --publisher 0x52908400098527886E0F7030069857D2E4169EE7

Headers are read from the data directory, beside a node that runs; proofs are asked of the endpoints and hold \
against those headers. `ioex chain authorised` ends with 7 if the answer is a proven no, `verify-tx` with 4 if all that \
was said of the transaction was false.";
