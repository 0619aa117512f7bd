//! Where messages begin and end in the bytes of one lane, and how long each is without the names it carries.
//!
//! A plain machine beside a lane; it reads headers and names, nothing else. Statement and portal names are
//! process-global in tokio-postgres and grow by a digit now and then: their bytes weigh nothing, so that no capacity,
//! bandwidth or slice depends on them. Bytes that are no PostgreSQL messages are opaque: each write is one piece.

use crate::fault::{CANCEL, ENCRYPT, START_UP};
use crate::pipe::Direction;

const CANCEL_CODE: u32 = 80_877_102;
const SSL_CODE: u32 = 80_877_103;
const GSS_CODE: u32 = 80_877_104;

/// The longest packet without a type byte that is taken for one; PostgreSQL's own limit.
const LONGEST_START_UP: usize = 10_000;

/// The longest message that is taken for one; PostgreSQL's own limit.
const LONGEST: usize = 0x3fff_ffff;

/// The framing of one lane.
#[derive(Debug)]
pub(crate) struct Framing {
    phase: Phase,
    direction: Direction,
    /// The bytes of the present message so far that may be its header.
    head: [u8; 8],
    /// How many bytes of the present message were taken.
    taken: usize,
    /// Where it ends, once its length is known.
    end: Option<usize>,
    names: Names,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing that has messages.
    Opaque,
    /// A packet without a type byte.
    StartUp,
    /// Messages.
    Typed,
    /// One byte, the answer to a request for encryption.
    Answer,
}

/// What begins with the next byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The type byte or one of its stand-ins; `None` for opaque bytes.
    pub(crate) kind: Option<char>,
    /// Its length in bytes, if enough of it was offered to know.
    pub(crate) length: Option<usize>,
}

/// What was taken of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) bytes: usize,
    /// The bytes without names.
    pub(crate) weight: usize,
    /// What the end of a message means for the lanes.
    pub(crate) news: Option<News>,
}

/// What the end of a message means for the other lane, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Encryption was asked for: one byte is the answer.
    Asked,
    /// From now on both lanes are opaque.
    Encrypted,
    /// The session starts: the server's lane has messages.
    Started,
}

/// Which bytes of the present message belong to names.
#[derive(Clone, Copy, Debug, Default)]
struct Names {
    /// Bytes before the first name.
    skip: usize,
    /// Names that are still to come or not yet over.
    left: usize,
}

impl Framing {
    pub(crate) fn new(direction: Direction) -> Self {
        Self {
            phase: match direction {
                Direction::ToServer => Phase::StartUp,
                Direction::ToClient => Phase::Opaque,
            },
            direction,
            head: [0; 8],
            taken: 0,
            end: None,
            names: Names::default(),
        }
    }

    /// The other lane had news.
    pub(crate) fn hear(&mut self, news: News) {
        self.phase = match news {
            News::Asked => Phase::Answer,
            News::Encrypted => Phase::Opaque,
            News::Started => Phase::Typed,
        };
    }

    /// What begins with the first of `offered`; `None` in the middle of something.
    pub(crate) fn begins(&self, offered: &[u8]) -> Option<Head> {
        if self.taken > 0 || offered.is_empty() {
            return None;
        }
        let mut head = [0; 8];
        let known = offered.len().min(8);
        head[..known].copy_from_slice(&offered[..known]);
        Some(self.read(&head, known))
    }

    /// Takes bytes up to the end of what the first of them belongs to, at most `weight` without names.
    pub(crate) fn take(&mut self, offered: &[u8], weight: usize) -> Taken {
        if self.phase == Phase::Opaque {
            let bytes = offered.len().min(weight);
            return Taken {
                bytes,
                weight: bytes,
                news: None,
            };
        }
        if self.taken < 8 {
            let known = self.taken.min(8);
            let more = offered.len().min(8 - known);
            self.head[known..known + more].copy_from_slice(&offered[..more]);
            self.learn(known + more);
            if self.phase == Phase::Opaque {
                return self.take(offered, weight);
            }
        }
        let room = self.end.map_or(offered.len().min(8), |end| end - self.taken);
        let (bytes, weight) = self.weigh(&offered[..offered.len().min(room)], weight);
        self.taken += bytes;
        let news = match self.end {
            Some(end) if self.taken >= end => self.finish(),
            _ => None,
        };
        Taken { bytes, weight, news }
    }

    fn read(&self, head: &[u8; 8], known: usize) -> Head {
        let word = |at: usize| {
            let bytes = [head[at], head[at + 1], head[at + 2], head[at + 3]];
            (known >= at + 4).then(|| u32::from_be_bytes(bytes))
        };
        let size = |word: Option<u32>| word.map(|word| usize::try_from(word).unwrap_or(usize::MAX));
        match self.phase {
            Phase::Opaque => Head {
                kind: None,
                length: None,
            },
            Phase::Answer => Head {
                kind: Some(ENCRYPT),
                length: Some(1),
            },
            Phase::StartUp => Head {
                kind: Some(match word(4) {
                    Some(CANCEL_CODE) => CANCEL,
                    Some(SSL_CODE | GSS_CODE) => ENCRYPT,
                    _ => START_UP,
                }),
                length: size(word(0)),
            },
            Phase::Typed => Head {
                kind: Some(char::from(head[0])),
                length: size(word(1)).map(|length| length.saturating_add(1)),
            },
        }
    }

    /// Works out the present message's end and names, when enough of it is known.
    fn learn(&mut self, known: usize) {
        if self.end.is_some() {
            return;
        }
        let head = self.read(&self.head, known);
        let legal = match self.phase {
            Phase::StartUp => 8..=LONGEST_START_UP,
            Phase::Typed => 5..=LONGEST,
            Phase::Answer | Phase::Opaque => 1..=usize::MAX,
        };
        if head.length.is_some_and(|length| !legal.contains(&length)) {
            self.phase = Phase::Opaque;
            self.taken = 0;
            return;
        }
        // The code decides what a start-up packet is; without it the packet has no end yet.
        if self.phase != Phase::StartUp || known >= 8 {
            self.end = head.length;
        }
        self.names = match (self.direction, head.kind) {
            (Direction::ToServer, Some('P' | 'E')) => Names { skip: 5, left: 1 },
            (Direction::ToServer, Some('B')) => Names { skip: 5, left: 2 },
            (Direction::ToServer, Some('C' | 'D')) => Names { skip: 6, left: 1 },
            _ => Names::default(),
        };
        if self.phase != Phase::Typed {
            self.names = Names::default();
        }
    }

    /// How many of `bytes` fit into `weight`, and what they weigh.
    fn weigh(&mut self, bytes: &[u8], weight: usize) -> (usize, usize) {
        let (mut count, mut weighed) = (0, 0);
        while count < bytes.len() {
            if self.names.left == 0 {
                let rest = (bytes.len() - count).min(weight - weighed);
                return (count + rest, weighed + rest);
            }
            let in_name = self.taken + count >= self.names.skip;
            if in_name && bytes[count] != 0 {
                count += 1;
                continue;
            }
            if weighed == weight {
                break;
            }
            if in_name {
                self.names.left -= 1;
            }
            count += 1;
            weighed += 1;
        }
        (count, weighed)
    }

    fn finish(&mut self) -> Option<News> {
        let kind = self.read(&self.head, 8).kind;
        let answer = self.head[0];
        self.taken = 0;
        self.end = None;
        match (self.phase, kind) {
            (Phase::Answer, _) => {
                // What follows a refusal is the session's; a lane without one is silent until it starts.
                self.phase = Phase::Typed;
                matches!(answer, b'S' | b'G').then(|| {
                    self.phase = Phase::Opaque;
                    News::Encrypted
                })
            }
            (Phase::StartUp, Some(ENCRYPT)) => Some(News::Asked),
            (Phase::StartUp, Some(START_UP)) => {
                self.phase = Phase::Typed;
                Some(News::Started)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind][..], &length, body].concat()
    }

    fn start_up(code: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 8).unwrap().to_be_bytes();
        [&length[..], &code.to_be_bytes(), body].concat()
    }

    /// All heads and the total weight when the bytes come in pieces of `size`.
    fn heads(framing: &mut Framing, bytes: &[u8], size: usize) -> (String, usize) {
        let (mut kinds, mut weight, mut at) = (String::new(), 0, 0);
        while at < bytes.len() {
            // What is offered is whole; only what is taken comes in pieces.
            if let Some(head) = framing.begins(&bytes[at..]) {
                kinds.push(head.kind.unwrap_or('-'));
            }
            let taken = framing.take(&bytes[at..], size);
            at += taken.bytes;
            weight += taken.weight;
        }
        (kinds, weight)
    }

    #[test]
    fn messages_are_found_whatever_the_pieces_and_names_weigh_nothing() {
        let stream = |name: &str| {
            let name = [name.as_bytes(), b"\0"].concat();
            [
                start_up(SSL_CODE, b""),
                start_up(196_608, b"user\0a\0\0"),
                message(b'P', &[&name, b"SELECT s1\0\0\0".as_slice()].concat()),
                message(b'D', &[b"S", name.as_slice()].concat()),
                message(b'B', &[b"p7\0", name.as_slice(), &[0; 6]].concat()),
                message(b'E', b"p7\0\0\0\0\0"),
                message(b'S', b""),
            ]
            .concat()
        };
        let whole = heads(&mut Framing::new(Direction::ToServer), &stream("s9"), usize::MAX);
        assert_eq!(whole.0, "?^PDBES");
        for size in 1..40 {
            for name in ["s9", "s10", "s12345"] {
                let seen = heads(&mut Framing::new(Direction::ToServer), &stream(name), size);
                assert_eq!(seen, whole, "{name} in pieces of {size}");
            }
        }
    }

    #[test]
    fn the_servers_lane_starts_with_the_session_and_ends_with_encryption() {
        let mut framing = Framing::new(Direction::ToClient);
        assert_eq!(heads(&mut framing, b"raw", 9).0, "-");
        framing.hear(News::Asked);
        assert_eq!(heads(&mut framing, b"N", 9).0, "?");
        framing.hear(News::Started);
        let replies = [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
        assert_eq!(heads(&mut framing, &replies, usize::MAX).0, "RZ");
        framing.hear(News::Asked);
        assert_eq!(framing.take(b"S", 9).news, Some(News::Encrypted));
        assert_eq!(heads(&mut framing, &replies, usize::MAX).0, "-");
    }

    #[test]
    fn bytes_that_are_no_messages_are_opaque() {
        let mut framing = Framing::new(Direction::ToServer);
        assert_eq!(framing.take(b"hello world", usize::MAX).bytes, 11);
        assert_eq!(framing.begins(b"more").unwrap().kind, None);
    }
}
