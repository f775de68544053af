//! Lists that are longer than a segment.

use identity::SecretKey;
use store::list::{ListBuilder, ListError, ListView, enclose};
use store::{Hash, SEGMENT_LEN_MAX};

fn key() -> SecretKey {
    SecretKey::from_seed([7; 32])
}

fn long_list(counter: u64) -> ListBuilder {
    let count = SEGMENT_LEN_MAX / 48 + 1000;
    ListBuilder {
        name: "long".into(),
        target: "archive".into(),
        version: (1, 2, 3),
        counter,
        expires_s: 99,
        ..ListBuilder::plain((0..count).map(|i| (Hash::of(&i.to_le_bytes()), 1 << 20)))
    }
}

#[test]
fn a_list_longer_than_a_segment_is_a_file_of_segments() {
    let document = long_list(5).sign(&key()).unwrap();
    let enclosed = enclose(&document, &key()).unwrap().expect("it is too long for a segment");
    let outer = ListView::open(&enclosed.outer).unwrap();
    assert!(outer.is_outer() && !outer.is_plain());
    assert_eq!(
        (outer.name(), outer.target(), outer.counter(), outer.expires_s()),
        ("long", "archive", 5, 99)
    );
    let mut put_together = Vec::new();
    for (entry, (hash, range)) in outer.entries().zip(&enclosed.segments) {
        assert_eq!((entry.hash, Hash::of(&document[range.clone()])), (*hash, *hash));
        put_together.extend_from_slice(&document[range.clone()]);
    }
    assert!(put_together == document);
    let inner = outer.open_inner(&put_together).unwrap();
    assert_eq!(inner.data_count(), SEGMENT_LEN_MAX / 48 + 1000);
    assert_eq!(inner.hash(), outer.file_hash().unwrap());
}

#[test]
fn a_list_that_fits_a_segment_needs_no_outer_one() {
    let document = ListBuilder { name: "short".into(), ..ListBuilder::default() }.sign(&key()).unwrap();
    assert_eq!(enclose(&document, &key()), Ok(None));
    let list = ListView::open(&document).unwrap();
    assert!(matches!(list.open_inner(&document), Err(ListError::Nesting { .. })));
}

#[test]
fn an_inner_list_that_is_another_is_refused() {
    let document = long_list(5).sign(&key()).unwrap();
    let outer = enclose(&document, &key()).unwrap().unwrap().outer;
    let outer = ListView::open(&outer).unwrap();
    let older = long_list(4).sign(&key()).unwrap();
    assert_eq!(older.len(), document.len());
    assert!(matches!(outer.open_inner(&older), Err(ListError::Nesting { .. })));
    let mut changed = document.clone();
    changed[300] ^= 1;
    assert!(matches!(outer.open_inner(&changed), Err(ListError::Nesting { .. })));
    assert!(matches!(outer.open_inner(&document[1..]), Err(ListError::Nesting { .. })));
    assert!(matches!(enclose(&document, &SecretKey::from_seed([8; 32])), Err(ListError::Nesting { .. })));
}
