//! What lets an encrypted publication go on after it was cut off: a secret of its own, kept until it is done.
//!
//! ```text
//! DIR/publish/    0700   one file 0600 for each file whose publication is not finished:
//!                        ioex publication 1
//!                        <64 hex>                       the secret
//!                        <device> <inode> <length> <mtime> <ctime>   of the file, times in nanoseconds
//! ```
//!
//! The key that is made of the secret depends on the file's content as well, so a file that was changed gets another key
//! by that alone. Its inode's times are compared all the same: a file that was changed while it was read, and back again
//! later, must not be published under the key that sealed the other bytes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const HEAD: &str = "ioex publication 1";

/// The secret of a publication, and where it is kept.
#[derive(Debug)]
pub struct Unfinished {
    path: PathBuf,
    pub secret: [u8; 32],
}

impl Unfinished {
    /// The secret that an earlier run left for this very file, or a new one.
    pub fn of(data: &Path, input: &Path, file: &File) -> io::Result<Unfinished> {
        let directory = data.join("publish");
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let absolute = std::path::absolute(input)?;
        let name = store::Hash::of(absolute.as_os_str().as_encoded_bytes()).to_string();
        let path = directory.join(&name[..32]);
        let file_facts = facts(file)?;
        if let Some(secret) = fs::read_to_string(&path).ok().and_then(|text| read(&text, &file_facts)) {
            return Ok(Unfinished { path, secret });
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|e| io::Error::other(e.to_string()))?;
        let hex = store::Hash(secret).to_string();
        // Written aside and renamed, so that a run that is killed here leaves the old secret or the new one.
        let aside = directory.join(format!("{}.new", &name[..32]));
        let _ = fs::remove_file(&aside);
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        out.write_all(format!("{HEAD}\n{hex}\n{file_facts}\n").as_bytes())?;
        out.sync_all()?;
        fs::rename(&aside, &path)?;
        File::open(&directory)?.sync_all()?;
        Ok(Unfinished { path, secret })
    }

    /// The publication is done, or must not go on: its key is not used again.
    pub fn forget(self) {
        // A file that stays leads to the same key for the same bytes once more, which gives nothing away.
        let _ = fs::remove_file(self.path);
    }
}

fn read(text: &str, file_facts: &str) -> Option<[u8; 32]> {
    let mut lines = text.lines();
    let (head, secret, facts) = (lines.next()?, lines.next()?, lines.next()?);
    let secret: store::Hash = secret.parse().ok()?;
    (head == HEAD && facts == file_facts).then_some(secret.0)
}

fn facts(file: &File) -> io::Result<String> {
    let of = file.metadata()?;
    let nanoseconds = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
    Ok(format!(
        "{} {} {} {} {}",
        of.dev(),
        of.ino(),
        of.len(),
        nanoseconds(of.mtime(), of.mtime_nsec()),
        nanoseconds(of.ctime(), of.ctime_nsec())
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_lives_as_long_as_the_file_is_the_same() {
        let root = tempfile::tempdir().unwrap();
        let input = root.path().join("image");
        fs::write(&input, "one").unwrap();
        let open = || File::open(&input).unwrap();
        let first = Unfinished::of(root.path(), &input, &open()).unwrap();
        let again = Unfinished::of(root.path(), &input, &open()).unwrap();
        assert_eq!(again.secret, first.secret);
        // Changed, and back: the times tell.
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&input, "two").unwrap();
        fs::write(&input, "one").unwrap();
        let other = Unfinished::of(root.path(), &input, &open()).unwrap();
        assert_ne!(other.secret, first.secret);
        let path = other.path.clone();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        other.forget();
        assert!(!path.exists());
    }
}
