//! Which exit code a failed transfer gets: what a script must know to go on.

use crate::exit::{Exit, Failure};
use peer::audit::AuditError;
use peer::fetch::NodeFailures;
use peer::lease::LeaseError;
use peer::publish::PutError;
use peer::repair::RepairError;
use peer::{ConnectError, ExchangeError, FetchError, PublishError};

/// Classifies a failed fetch.
pub fn of_fetch(error: FetchError) -> Failure {
    Failure::new(exit_of_fetch(&error), error)
}

/// Classifies a repair that could not begin.
pub fn of_repair(error: RepairError) -> Failure {
    let exit = match &error {
        RepairError::NoNodes => Exit::Usage,
        RepairError::List(error) => exit_of_fetch(error),
        RepairError::Document(_) => Exit::VerificationFailed,
        RepairError::Random(_) | RepairError::Interrupted(_) => Exit::Failed,
    };
    Failure::new(exit, error)
}

/// Classifies an audit that could not begin.
pub fn of_audit(error: AuditError) -> Failure {
    let exit = match &error {
        AuditError::NoNodes => Exit::Usage,
        AuditError::List(error) => exit_of_fetch(error),
        AuditError::Document(_) | AuditError::Outboard { .. } => Exit::VerificationFailed,
        AuditError::Interrupted(_) => Exit::Failed,
    };
    Failure::new(exit, error)
}

/// Classifies leases that could not be asked for.
pub fn of_lease(error: LeaseError) -> Failure {
    let exit = match &error {
        LeaseError::NoNodes => Exit::Usage,
        LeaseError::List(error) => exit_of_fetch(error),
        LeaseError::Document(_) => Exit::VerificationFailed,
        LeaseError::Token(PublishError::NodeUid { .. }) => Exit::NotTrusted,
        LeaseError::Token(_) | LeaseError::Interrupted(_) => Exit::Failed,
    };
    Failure::new(exit, error)
}

fn exit_of_fetch(error: &FetchError) -> Exit {
    match error {
        FetchError::NoNodes => Exit::Usage,
        // Every node answered, and none holds it.
        FetchError::NoSegment { failures, .. } | FetchError::LostGroups { failures, .. }
            if failures.0.is_empty() =>
        {
            Exit::NotFound
        }
        FetchError::NoDocument { failures, .. }
        | FetchError::NoSegment { failures, .. }
        | FetchError::LostGroups { failures, .. }
        | FetchError::AllNodesFailed { failures, .. } => of_nodes(failures),
        FetchError::List { .. }
        | FetchError::Inconsistent { .. }
        | FetchError::NotAList { .. }
        | FetchError::Publisher { .. }
        | FetchError::Rollback { .. }
        | FetchError::Downgrade { .. }
        | FetchError::Expired { .. }
        | FetchError::Segment { .. }
        | FetchError::Restore { .. }
        | FetchError::FileHash { .. } => Exit::VerificationFailed,
        FetchError::NotForThisIdentity { .. } | FetchError::Key { .. } => Exit::NotTrusted,
        FetchError::DiskFull { .. } => Exit::NoSpace,
        FetchError::File { source, .. } | FetchError::Seed { source, .. } | FetchError::Output(source) => {
            of_io(source)
        }
        FetchError::Counter { .. } | FetchError::InUse { .. } | FetchError::Interrupted(_) => Exit::Failed,
    }
}

/// Classifies a failed publication.
pub fn of_publish(error: PublishError) -> Failure {
    let exit = match &error {
        PublishError::NoNodes | PublishError::Option { .. } | PublishError::TooManySegments { .. } => {
            Exit::Usage
        }
        PublishError::Reader(_) => Exit::Usage,
        PublishError::NodeUid { .. } => Exit::NotTrusted,
        PublishError::Connect { source, .. } => of_connect(source),
        PublishError::Read { source, .. } => of_io(source),
        PublishError::Node { error, .. } => of_put(error),
        PublishError::NoNodesLeft { .. } => Exit::Unreachable,
        PublishError::Encode(_)
        | PublishError::List(_)
        | PublishError::Changed { .. }
        | PublishError::Random(_)
        | PublishError::Interrupted(_) => Exit::Failed,
    };
    Failure::new(exit, error)
}

/// What a node's refusal to take content ends with.
pub fn of_put(error: &PutError) -> Exit {
    match error {
        PutError::Unauthorized { .. } | PutError::Forbidden { .. } => Exit::NotTrusted,
        PutError::Mismatch { .. } => Exit::VerificationFailed,
        PutError::TooLarge { .. } => Exit::Failed,
        PutError::Full { .. } => Exit::NoSpace,
        PutError::Exchange(error) => of_exchange(error),
    }
}

/// Of several nodes the gravest failure counts: wrong bytes before a missing identity, that before content
/// that is nowhere, that before nodes that do not answer.
fn of_nodes(failures: &NodeFailures) -> Exit {
    let gravity = |exit: &Exit| match exit {
        Exit::VerificationFailed => 4,
        Exit::NotTrusted => 3,
        Exit::NotFound => 2,
        Exit::Unreachable => 1,
        _ => 0,
    };
    failures.0.iter().map(|failure| of_exchange(&failure.error)).max_by_key(gravity).unwrap_or(Exit::Failed)
}

fn of_exchange(error: &ExchangeError) -> Exit {
    match error {
        ExchangeError::Connect(error) => of_connect(error),
        ExchangeError::Lost { .. }
        | ExchangeError::Stalled { .. }
        | ExchangeError::Busy { .. }
        | ExchangeError::Truncated { .. } => Exit::Unreachable,
        ExchangeError::NotFound { .. } => Exit::NotFound,
        ExchangeError::WrongBytes { .. }
        | ExchangeError::WrongBlock { .. }
        | ExchangeError::WrongRange { .. }
        | ExchangeError::WrongLength { .. } => Exit::VerificationFailed,
        ExchangeError::Status { .. } => Exit::Failed,
    }
}

fn of_connect(error: &ConnectError) -> Exit {
    match error {
        ConnectError::Identity { .. } | ConnectError::Trust(_) | ConnectError::Untrusted { .. } => {
            Exit::NotTrusted
        }
        ConnectError::Resolve { .. } | ConnectError::Timeout { .. } | ConnectError::Handshake { .. } => {
            Exit::Unreachable
        }
    }
}

fn of_io(error: &std::io::Error) -> Exit {
    match error.kind() {
        std::io::ErrorKind::NotFound => Exit::NotFound,
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Exit::NoSpace,
        _ => Exit::Failed,
    }
}
