//! A content address list from a stranger: bounds, then signature, then every segment.
#![no_main]

use libfuzzer_sys::fuzz_target;
use store::list::ListView;

fuzz_target!(|data: &[u8]| {
    let Ok(list) = ListView::open(data) else { return };
    let mut end = 0;
    for i in 0..list.data_count() {
        let entry = list.entry(i).expect("a list that opened has every segment that it counts");
        assert_eq!(entry.file_offset, end);
        end += u64::from(entry.plain_len);
    }
    assert_eq!(end, list.file_len());
    assert!(list.entry(list.data_count()).is_none());
    assert!(list.locate(list.file_len()).is_none());
});
