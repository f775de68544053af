//! Who signs blocks of the consortium chain, by rows, so that a record needs two bytes for an arbitrator and not 20.

use crate::chain::place::{ChainDirectory, read_if_any, write_public};
use crate::configuration::chain::{Address as ShownAddress, show_hex};
use crate::data_directory::DataDirectoryError;
use alloy_primitives::Address;
use std::path::PathBuf;

/// Rows that there may be: the row behind the last says nobody.
const ROWS_MAX: usize = u16::MAX as usize;

/// Why there is no table, or no row in it.
#[derive(Debug, thiserror::Error)]
pub enum SignersError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] DataDirectoryError),
    /// A line is no address.
    #[error("{path}:{line}: {reason}; move the folder away, and the headers are fetched again", path = .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// 65,535 arbitrators are in it.
    #[error(
        "the table of arbitrators is full: {ROWS_MAX} have signed since the headers begin; begin at a newer checkpoint"
    )]
    Full,
}

/// Everybody who ever signed or was in turn, in the order in which they came. It only grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignerTable {
    rows: Vec<Address>,
}

impl SignerTable {
    /// The table of the headers that are kept; an empty one if there is none.
    pub fn read(directory: &ChainDirectory) -> Result<SignerTable, SignersError> {
        let path = directory.dpos_signers();
        let text = read_if_any(&path)?.unwrap_or_default();
        let row = |(place, line): (usize, &str)| match line.parse::<ShownAddress>() {
            Ok(address) => Ok(Address::new(address.0)),
            Err(reason) => Err(SignersError::Line { path: path.clone(), line: place + 1, reason }),
        };
        let rows = String::from_utf8_lossy(&text).lines().enumerate().map(row).collect::<Result<_, _>>()?;
        Ok(SignerTable { rows })
    }

    /// Writes it down: before the records that name a new row.
    pub fn write(&self, directory: &ChainDirectory) -> Result<(), SignersError> {
        let text: String = self.rows.iter().map(|row| format!("{}\n", show_hex(&row.0.0))).collect();
        Ok(write_public(&directory.dpos_signers(), text.as_bytes())?)
    }

    /// All rows.
    pub fn rows(&self) -> &[Address] {
        &self.rows
    }

    /// Who stands in a row.
    pub fn get(&self, row: u16) -> Option<Address> {
        self.rows.get(usize::from(row)).copied()
    }

    /// The row of an address, a new one if it has none.
    pub fn row(&mut self, address: Address) -> Result<u16, SignersError> {
        // There are about as many rows as arbitrators, and who signed lately is near the end.
        let known = self.rows.iter().rposition(|row| *row == address);
        if known.is_none() && self.rows.len() == ROWS_MAX {
            return Err(SignersError::Full);
        }
        let row = known.unwrap_or_else(|| {
            self.rows.push(address);
            self.rows.len() - 1
        });
        Ok(u16::try_from(row).expect("there are fewer rows than that"))
    }
}
