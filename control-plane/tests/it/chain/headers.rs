//! Headers on disk: what a crash or damage leaves opens to a verified prefix.

use alloy_primitives::Address;
use chain_lite::Hash;
use control_plane::chain::headers::{
    DposRecord, HeaderFile, HeaderFileError, PAGE_LEN, Page, PowRecord, Record, SignerTable, SignersError,
};
use control_plane::chain::place::ChainDirectory;
use control_plane::data_directory::DataDirectory;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PAGE: Page = Page { anchor: [7; 32], first: 1_000, chain_id: 1224 };

/// Where the child of the kill test writes.
const CHILD_FILE: &str = "CHAIN_HEADERS_CHILD_FILE";

fn dpos(height: u64, branch: u8) -> DposRecord {
    let mut hash = [branch; 32];
    hash[..8].copy_from_slice(&height.to_be_bytes());
    DposRecord {
        hash,
        state_root: [1; 32],
        receipts_root: [2; 32],
        time_s: height * 30,
        signer: (height % 51) as u16,
        in_turn: 3,
    }
}

fn branch(from: u64, count: u64, branch: u8) -> Vec<DposRecord> {
    (from..from + count).map(|height| dpos(height, branch)).collect()
}

fn file_of(directory: &Path, records: &[DposRecord]) -> PathBuf {
    let path = directory.join("headers");
    HeaderFile::create(&path, PAGE).unwrap().append(records).unwrap();
    path
}

fn all(path: &Path) -> Vec<DposRecord> {
    let file = HeaderFile::<DposRecord>::open_to_read(path).unwrap().unwrap();
    file.range(PAGE.first, 1 << 20).unwrap()
}

#[test]
fn records_have_the_promised_width_and_are_read_by_position() {
    assert_eq!((PowRecord::LEN, DposRecord::LEN), (84, 112));
    let directory = tempfile::tempdir().unwrap();
    let records = branch(1_000, 20_000, 1);
    let path = file_of(directory.path(), &records);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 128 + 20_000 * 112);
    let file = HeaderFile::<DposRecord>::open_to_read(&path).unwrap().unwrap();
    assert_eq!((file.page(), file.len().unwrap()), (PAGE, 20_000));
    assert_eq!(file.get(1_000).unwrap(), Some(records[0]));
    assert_eq!(file.get(15_000).unwrap(), Some(records[14_000]));
    assert_eq!(file.tip().unwrap(), Some((20_999, records[19_999])));
    assert_eq!((file.get(999).unwrap(), file.get(21_000).unwrap()), (None, None));
    assert_eq!(file.range(20_990, 100).unwrap(), records[19_990..]);
    for place in [0, 1, 9_361, 9_362, 10_637, 10_638, 19_999] {
        assert_eq!(file.find(&records[place].hash).unwrap(), Some(1_000 + place as u64));
    }
    assert_eq!(file.find(&[9; 32]).unwrap(), None);
}

#[test]
fn a_record_of_the_public_chain_is_its_header_again() {
    let block = chain_lite::pow::BlockHeader {
        version: 3,
        previous: Hash([4; 32]),
        merkle_root: Hash([5; 32]),
        time_s: 1_552_291_320,
        bits: 0x1e00_f8ff,
        nonce: 77,
        height: 1_000,
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("headers");
    let file = HeaderFile::create(&path, PAGE).unwrap();
    file.append(&[PowRecord::of(&block)]).unwrap();
    let (_, record) = file.tip().unwrap().unwrap();
    assert_eq!(record.block(block.previous, 1_000), block);
    assert_eq!(record.hash, block.hash());
    // Another chain's file is not taken for it.
    let error = HeaderFile::<DposRecord>::open_to_read(&path).unwrap_err();
    assert!(error.to_string().contains("it is of chain 1 with 84 bytes a record"), "{error}");
}

#[test]
fn a_file_cut_at_any_byte_opens_to_the_records_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let records = branch(1_000, 8, 1);
    let path = file_of(directory.path(), &records);
    let whole = std::fs::read(&path).unwrap();
    for len in (PAGE_LEN + 5 * DposRecord::LEN..=whole.len()).rev() {
        std::fs::write(&path, &whole[..len]).unwrap();
        let kept = (len - PAGE_LEN) / DposRecord::LEN;
        let reader = HeaderFile::<DposRecord>::open_to_read(&path).unwrap().unwrap();
        assert_eq!(reader.tip().unwrap(), Some((999 + kept as u64, records[kept - 1])), "cut at {len}");
        let (file, opened) = HeaderFile::<DposRecord>::open_to_write(&path).unwrap();
        assert_eq!(opened.records, kept as u64, "cut at {len}");
        assert_eq!(opened.cut_bytes, ((len - PAGE_LEN) % DposRecord::LEN) as u64, "cut at {len}");
        // And it goes on from there.
        file.append(&branch(1_000 + kept as u64, 1, 1)).unwrap();
        assert_eq!(all(&path).len(), kept + 1);
    }
    for len in 0..PAGE_LEN {
        std::fs::write(&path, &whole[..len]).unwrap();
        assert!(HeaderFile::<DposRecord>::open_to_write(&path).is_err(), "a page of {len} bytes");
    }
}

#[test]
fn any_damaged_byte_ends_the_verified_prefix_before_its_record() {
    let directory = tempfile::tempdir().unwrap();
    let records = branch(1_000, 6, 1);
    let path = file_of(directory.path(), &records);
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&path, &damaged).unwrap();
        if at < PAGE_LEN {
            let error = HeaderFile::<DposRecord>::open_to_write(&path).unwrap_err();
            assert!(matches!(error, HeaderFileError::Page { .. }), "byte {at}: {error}");
            continue;
        }
        let (_, opened) = HeaderFile::<DposRecord>::open_to_write(&path).unwrap();
        assert_eq!(opened.records, ((at - PAGE_LEN) / DposRecord::LEN) as u64, "byte {at}");
    }
}

#[test]
fn a_power_loss_that_leaves_zeros_or_an_old_branch_behind_the_new_one_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let old = branch(1_000, 10, 1);
    let path = file_of(directory.path(), &old);
    let mut bytes = std::fs::read(&path).unwrap();
    // The new branch from the fifth record on has reached the disk up to the seventh.
    let file = HeaderFile::<DposRecord>::open_to_write(&path).unwrap().0;
    file.replace_from(1_004, &branch(1_004, 6, 2)).unwrap();
    let new = std::fs::read(&path).unwrap();
    let end = PAGE_LEN + 7 * DposRecord::LEN;
    bytes[..end].copy_from_slice(&new[..end]);
    std::fs::write(&path, &bytes).unwrap();
    let (_, opened) = HeaderFile::<DposRecord>::open_to_write(&path).unwrap();
    assert_eq!(opened.records, 7);
    assert_eq!(all(&path), [&old[..4], &branch(1_004, 3, 2)].concat());

    bytes.truncate(end);
    bytes.extend_from_slice(&[0; 4096]);
    std::fs::write(&path, &bytes).unwrap();
    let reader = HeaderFile::<DposRecord>::open_to_read(&path).unwrap().unwrap();
    assert_eq!(reader.tip().unwrap().unwrap().0, 1_006);
    assert_eq!(HeaderFile::<DposRecord>::open_to_write(&path).unwrap().1.records, 7);
}

#[test]
fn kill_9_at_any_write_opens_to_a_verified_prefix() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..25_u64 {
        let path = directory.path().join(format!("headers-{round}"));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "--nocapture",
                "chain::headers::child_that_writes_until_it_is_killed",
            ])
            .env(CHILD_FILE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut heights = lines.filter_map(|line| line.unwrap().strip_prefix("tip ")?.parse::<u64>().ok());
        // It has written at least once, and is amid a later write wherever the signal finds it.
        let mut synced = heights.next().unwrap();
        std::thread::sleep(Duration::from_micros(round * 1_700));
        child.kill().unwrap();
        child.wait().unwrap();
        synced = heights.last().unwrap_or(synced);

        let (file, opened) = HeaderFile::<DposRecord>::open_to_write(&path).unwrap();
        let (height, tip) = file.tip().unwrap().unwrap();
        assert_eq!(height, 999 + opened.records);
        // A reorganisation takes away at most three of what was synced, and puts five.
        assert!(height + 3 >= synced, "round {round}: {height} after {synced}");
        let records = all(&path);
        assert_eq!(records.last(), Some(&tip));
        for (expected, record) in (1_000_u64..).zip(&records) {
            assert_eq!(*record, dpos(expected, record.hash[31]), "round {round}");
        }
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the parent reads what was synced")]
#[ignore = "what kill_9_at_any_write_opens_to_a_verified_prefix starts and kills"]
fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD_FILE) else { return };
    let file = HeaderFile::create(Path::new(&path), PAGE).unwrap();
    let mut next = 1_000;
    for step in 0_u8.. {
        if step.is_multiple_of(7) && next > 1_010 {
            file.replace_from(next - 3, &branch(next - 3, 5, step)).unwrap();
            next += 2;
        } else {
            let count = u64::from(step) * 37 % 50 + 1;
            file.append(&branch(next, count, step)).unwrap();
            next += count;
        }
        println!("tip {}", next - 1);
        if step == u8::MAX {
            // Nobody has killed it: the test is gone.
            return;
        }
    }
}

#[test]
fn a_reader_beside_a_writer_sees_whole_records_of_one_branch() {
    let directory = tempfile::tempdir().unwrap();
    let path = file_of(directory.path(), &branch(1_000, 50, 0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (file, _) = HeaderFile::<DposRecord>::open_to_write(&path).unwrap();
            for salt in 1..=200 {
                file.replace_from(1_040, &branch(1_040, 11 + u64::from(salt) % 5, salt)).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let reader = HeaderFile::<DposRecord>::open_to_read(&path).unwrap().unwrap();
        while !done.load(Ordering::Acquire) {
            let seen = reader.range(1_030, 40).unwrap();
            assert!(seen.len() >= 10, "{}", seen.len());
            // The branch changes at one place and nowhere else.
            let salts: Vec<_> = seen.iter().map(|record| record.hash[31]).collect();
            assert!(salts[..10].iter().all(|salt| *salt == 0), "{salts:?}");
            assert!(salts[10..].windows(2).all(|pair| pair[0] == pair[1]), "{salts:?}");
        }
    });
}

#[test]
fn the_table_of_signers_is_kept_and_has_an_end() {
    let home = tempfile::tempdir().unwrap();
    let directory = ChainDirectory::of(&DataDirectory::existing(home.path()));
    assert_eq!(SignerTable::read(&directory).unwrap(), SignerTable::default());
    std::fs::create_dir_all(directory.dpos_signers().parent().unwrap()).unwrap();
    let address = |row: u16| Address::left_padding_from(&row.to_be_bytes());
    let text: String = (0..65_534).map(|row| format!("{}\n", address(row))).collect();
    std::fs::write(directory.dpos_signers(), text).unwrap();
    let mut table = SignerTable::read(&directory).unwrap();
    assert_eq!((table.row(address(7)).unwrap(), table.row(address(65_534)).unwrap()), (7, 65_534));
    // The row that is left means nobody.
    assert!(matches!(table.row(address(u16::MAX)), Err(SignersError::Full)));
    assert_eq!((table.rows().len(), table.get(DposRecord::NO_SIGNER)), (65_535, None));

    table.write(&directory).unwrap();
    assert_eq!(SignerTable::read(&directory).unwrap(), table);
    let text = std::fs::read_to_string(directory.dpos_signers()).unwrap();
    std::fs::write(directory.dpos_signers(), text.replacen("0x", "0y", 1)).unwrap();
    let error = SignerTable::read(&directory).unwrap_err();
    assert!(matches!(error, SignersError::Line { line: 1, .. }), "{error}");
}
