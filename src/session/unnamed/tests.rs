//! What goes out for statements under names, and what comes back in.

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Strange, Unnamed, message};

fn built(tag: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    message(&mut out, tag, &[payload]);
    out.to_vec()
}

/// A RowDescription of one column.
fn column(name: &str, oid: u32) -> Vec<u8> {
    let behind = [&[0; 6][..], &oid.to_be_bytes(), &[0, 4, 0xff, 0xff, 0xff, 0xff, 0, 0]].concat();
    built(b'T', &[b"\0\x01", name.as_bytes(), b"\0", &behind].concat())
}

fn started() -> Unnamed {
    let mut unnamed = Unnamed::default();
    assert_eq!(sent(&mut unnamed, &[0, 0, 0, 8, 0, 3, 0, 0]), [0, 0, 0, 8, 0, 3, 0, 0]);
    assert_eq!(received(&mut unnamed, &ready()), Ok(ready()));
    unnamed
}

fn ready() -> Vec<u8> {
    built(b'Z', b"I")
}

fn sent(unnamed: &mut Unnamed, bytes: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    unnamed.outbound(bytes, &mut out);
    out.to_vec()
}

fn received(unnamed: &mut Unnamed, bytes: &[u8]) -> Result<Vec<u8>, Strange> {
    let mut out = BytesMut::new();
    unnamed.inbound(bytes, |oid| oid == 20_000, &mut out)?;
    Ok(out.to_vec())
}

fn prepare(name: &str) -> Vec<u8> {
    let parse = [name.as_bytes(), b"\0SELECT $1 + 1\0\0\0"].concat();
    let describe = [b"S", name.as_bytes(), b"\0"].concat();
    [built(b'P', &parse), built(b'D', &describe), built(b'S', b"")].concat()
}

fn prepared(columns: &[u8]) -> Vec<u8> {
    let parameters = built(b't', b"\0\x01\0\0\0\x17");
    [built(b'1', b""), parameters, columns.to_vec(), ready()].concat()
}

fn bind(name: &str) -> Vec<u8> {
    let bind = [b"\0", name.as_bytes(), b"\0\0\x01\0\x01\0\x01\0\0\0\x01x\0\x01\0\x01"].concat();
    [built(b'B', &bind), built(b'E', b"\0\0\0\0\0"), built(b'S', b"")].concat()
}

#[test]
fn no_name_leaves_and_what_was_put_in_comes_out_again() {
    let mut unnamed = started();
    assert_eq!(sent(&mut unnamed, &prepare("s7")), prepare(""));
    let answer = prepared(&column("a", 23));
    assert_eq!(received(&mut unnamed, &answer), Ok(answer));

    let parse = built(b'P', b"\0SELECT $1 + 1\0\0\x01\0\0\0\x17");
    let again = [parse, built(b'D', b"S\0"), bind("")].concat();
    let parameters = built(b't', b"\0\x01\0\0\0\x17");
    for _ in 0..2 {
        assert_eq!(sent(&mut unnamed, &bind("s7")), again);
        let ours = [built(b'1', b""), parameters.clone(), column("a", 23)].concat();
        let theirs = [
            built(b'2', b""),
            built(b'D', b"\0\0"),
            built(b'C', b"SELECT 1\0"),
            ready(),
        ]
        .concat();
        assert_eq!(received(&mut unnamed, &[ours, theirs.clone()].concat()), Ok(theirs));
    }
    let close = |name: &str| [built(b'C', format!("S{name}\0").as_bytes()), built(b'S', b"")].concat();
    assert_eq!(sent(&mut unnamed, &close("s7")), close(""));
    let closed = [built(b'3', b""), ready()].concat();
    assert_eq!(received(&mut unnamed, &closed), Ok(closed));
    assert!(unnamed.known.is_empty() && unnamed.expected.is_empty(), "{unnamed:?}");
}

#[test]
fn other_columns_than_the_first_end_the_session() {
    for changed in [column("b", 23), column("a", 25), built(b'n', b"")] {
        let mut unnamed = started();
        sent(&mut unnamed, &prepare("s1"));
        received(&mut unnamed, &prepared(&column("a", 23))).expect("sound");
        sent(&mut unnamed, &bind("s1"));
        let answer = [built(b'1', b""), built(b't', b"\0\0"), changed].concat();
        assert_eq!(received(&mut unnamed, &answer), Err(Strange::Columns));
    }
}

#[test]
fn only_types_that_need_not_be_asked_for_come_with_rows() {
    let parse = [built(b'P', b"\0SELECT\0\0\0"), built(b'D', b"S\0"), built(b'S', b"")].concat();
    for (oid, taken) in [(23, true), (20_000, true), (20_001, false)] {
        let mut unnamed = started();
        assert_eq!(sent(&mut unnamed, &parse), parse);
        let answer = prepared(&column("a", oid));
        let expected = if taken {
            Ok(answer.clone())
        } else {
            Err(Strange::Type(oid))
        };
        assert_eq!(received(&mut unnamed, &answer), expected);
    }
}

#[test]
fn a_refused_statement_is_forgotten_and_counts_for_nothing() {
    let mut unnamed = started();
    sent(&mut unnamed, &prepare("s1"));
    let refused = [built(b'E', b"SERROR\0\0"), ready()].concat();
    assert_eq!(received(&mut unnamed, &refused), Ok(refused.clone()));
    assert!(unnamed.known.is_empty());
    sent(&mut unnamed, &prepare("s2"));
    received(&mut unnamed, &prepared(&column("a", 23))).expect("sound");
    sent(&mut unnamed, &bind("s2"));
    assert_eq!(received(&mut unnamed, &refused), Ok(refused));
    assert!(unnamed.expected.is_empty() && unnamed.known.len() == 1, "{unnamed:?}");
}

#[test]
fn the_sync_that_copy_in_swallows_ends_its_request() {
    let mut unnamed = started();
    sent(&mut unnamed, &prepare("s1"));
    let none = [built(b'1', b""), built(b't', b"\0\0"), built(b'n', b""), ready()].concat();
    received(&mut unnamed, &none).expect("sound");
    sent(&mut unnamed, &bind("s1"));
    let begun = [
        built(b'1', b""),
        built(b't', b"\0\0"),
        built(b'n', b""),
        built(b'2', b""),
        built(b'G', b"\0\0\0"),
    ];
    let passed = begun[3..].concat();
    assert_eq!(received(&mut unnamed, &begun.concat()), Ok(passed));
    let data = [built(b'd', b"1\n"), built(b'c', b""), built(b'S', b"")].concat();
    assert_eq!(sent(&mut unnamed, &data), data);
    let ended = [built(b'C', b"COPY 1\0"), ready()].concat();
    assert_eq!(received(&mut unnamed, &ended), Ok(ended));
    assert!(unnamed.expected.is_empty());
}

proptest! {
    /// The pieces in which bytes arrive change nothing.
    #[test]
    fn pieces_do_not_matter(cuts in vec(1usize..9, 1..40)) {
        let ours = [built(b'1', b""), built(b't', b"\0\x01\0\0\0\x17"), column("a", 23)].concat();
        let theirs = [built(b'2', b""), built(b'D', b"\0\0"), built(b'C', b"SELECT 1\0"), ready()].concat();
        let steps = [
            (prepare("s3"), prepared(&column("a", 23))),
            (bind("s3"), [ours, theirs].concat()),
            (built(b'Q', b"SELECT 1\0"), [column("b", 20_001), built(b'C', b"SELECT 1\0"), ready()].concat()),
        ];
        let (mut whole, mut pieces) = (started(), started());
        for (outbound, inbound) in steps {
            let (mut out, mut at, mut cut) = (Vec::new(), 0, cuts.iter().cycle());
            while at < outbound.len() {
                let end = outbound.len().min(at + cut.next().unwrap());
                out.extend(sent(&mut pieces, &outbound[at..end]));
                at = end;
            }
            prop_assert_eq!(out, sent(&mut whole, &outbound));
            let (mut out, mut at) = (Vec::new(), 0);
            while at < inbound.len() {
                let end = inbound.len().min(at + cut.next().unwrap());
                out.extend(received(&mut pieces, &inbound[at..end]).unwrap());
                at = end;
            }
            prop_assert_eq!(out, received(&mut whole, &inbound).unwrap());
        }
    }

    /// Whatever bytes come, in whatever order, it does not panic.
    #[test]
    fn any_bytes_are_taken(steps in vec((any::<bool>(), vec(any::<u8>(), 0..60)), 0..12)) {
        let mut unnamed = started();
        for (outbound, bytes) in steps {
            if outbound {
                sent(&mut unnamed, &bytes);
            } else if received(&mut unnamed, &bytes).is_err() {
                break;
            }
        }
    }
}
