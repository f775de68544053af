//! A content address list from a stranger: bounds, then signature, then every segment.
#![no_main]

use libfuzzer_sys::fuzz_target;
use store::list::ListView;

fuzz_target!(|data: &[u8]| {
    let Ok(list) = ListView::open(data) else { return };
    let mut end = 0;
    for i in 0..list.segment_count() {
        let (_, len) = list.segment(i).expect("a list that opened has every segment that it counts");
        assert_eq!(list.offset_of(i), Some(end));
        end += u64::from(len);
    }
    assert_eq!(end, list.file_len());
    assert!(list.segment(list.segment_count()).is_none());
    assert!(list.locate(list.file_len()).is_none());
});
