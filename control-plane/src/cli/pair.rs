//! The command line of `ioex pair`.

use super::Place;
use clap::Args;

/// `ioex pair`.
#[derive(Args, Debug, Clone)]
pub struct Pair {
    /// The code that the other device shows; - asks for it, so that it stands in no list of processes. Without it a code is drawn
    /// here, for the other device
    #[arg(value_name = "CODE")]
    pub code: Option<String>,
    /// Look for the other device at this node, as its `ioex pair` prints it; may be given more than once [default: this node's
    /// mailbox, then the bootstrap nodes that it knows]
    #[arg(long, value_name = "URL", requires = "code")]
    pub at: Vec<String>,
    /// How long the code that is drawn is valid, 1 s to 1 h
    #[arg(long, value_name = "SECONDS", conflicts_with = "code")]
    pub valid: Option<u64>,
    /// Withdraw the code that waits
    #[arg(long, conflicts_with_all = ["code", "valid"])]
    pub cancel: bool,
    /// Show how the latest code stands, and the one that this device was delivered with
    #[arg(long, conflicts_with_all = ["code", "valid", "cancel"])]
    pub status: bool,
    /// Draw a code of twenty digits that a device can be delivered with (friends.pairing_code); no node needs to run
    #[arg(long, conflicts_with_all = ["code", "valid", "cancel", "status"])]
    pub draw: bool,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// Print one JSON object a line instead of text
    #[arg(long)]
    pub json: bool,
}

pub(super) const PAIR_EXAMPLES: &str = "\
Makes two devices of yours friends, without a request that somebody accepts. Both must run with a mailbox (ioex up --mailbox).

Examples:
  ioex pair                                    on one device: shows a code and waits
  ioex pair -                                  on the other: asks for the code
  ioex pair - --at https://UID@relay.example.com:4433
  ioex pair --valid 60
  ioex pair --cancel                           the code counts no more
  ioex pair --status                           how the codes of this device stand
  ioex pair --draw > pairing-code              in a factory: a code for one device's sticker, and its configuration

The code is good for one device, and for 5 minutes. Whoever has it meanwhile may become a friend of this device; whoever has not, \
the nodes in between included, can only guess at it, and the third wrong guess ends it. Its first four digits say where the two \
devices meet and are no secret.

A device can be delivered with a code of twenty digits, its default code: friends.pairing_code names the file. It waits until a first device \
of the owner's is kept, and rests for an hour after three wrong guesses. Draw one for each device, and never use one twice.

Exit codes:
  0  paired: each is the other's friend
  1  the code was guessed at too often, used, or led to nothing
  2  no code, or mistyped: its last digit is a check digit
  3  no node runs here, or no device waits with this code
  4  whoever answers does not know the code either
  6  this node has no mailbox now, or the other device does not answer
  7  the code is wrong
  130  interrupted; the code is withdrawn";
