//! Raw messages of the protocol: requests from their short forms, replies to theirs.
//!
//! Written here once more, apart from the simulator's and the driver's codecs, so that none proves itself.

/// A request in its short form: `Q sql`, `P name|sql`, `B portal|statement|value|…`, `D S|name`, `E portal|rows`,
/// `C P|name`, `S`, `H`, `X`, `d data`, `c`, `f reason`, `startup name=value …`, `startup-3.2 …`, `ssl`, `gss`, `hex …`.
pub(crate) fn request(short: &str) -> Vec<u8> {
    let (verb, rest) = short.split_once(' ').unwrap_or((short, ""));
    let parts: Vec<&str> = rest.split('|').collect();
    let mut body = Vec::new();
    match verb {
        "Q" | "f" => text(&mut body, rest),
        "P" => {
            text(&mut body, parts[0]);
            text(&mut body, &parts[1..].join("|"));
            body.extend([0, 0]);
        }
        "B" => bind(&mut body, &parts),
        "D" | "C" => {
            body.extend(parts[0].as_bytes());
            text(&mut body, parts[1]);
        }
        "E" => {
            text(&mut body, parts[0]);
            body.extend(parts[1].parse::<i32>().expect("a number of rows").to_be_bytes());
        }
        "d" => body.extend(rest.replace("\\n", "\n").bytes()),
        "S" | "H" | "X" | "c" => {}
        "startup" => return start_up(3 << 16, rest),
        "startup-3.2" => return start_up((3 << 16) | 2, rest),
        "ssl" => return packet(80_877_103, &[]),
        "gss" => return packet(80_877_104, &[]),
        "hex" => {
            return rest
                .split(' ')
                .map(|byte| u8::from_str_radix(byte, 16).expect("a byte"))
                .collect();
        }
        other => panic!("no request {other:?}"),
    }
    let mut bytes = verb.as_bytes().to_vec();
    bytes.extend(length(body.len()));
    bytes.extend(body);
    bytes
}

/// The packet that asks to cancel.
pub(crate) fn cancel(pid: i32, key: i32) -> Vec<u8> {
    packet(80_877_102, &[pid.to_be_bytes(), key.to_be_bytes()].concat())
}

fn bind(body: &mut Vec<u8>, parts: &[&str]) {
    text(body, parts[0]);
    text(body, parts[1]);
    body.extend([0, 0]);
    let values = &parts[2..];
    body.extend(u16::try_from(values.len()).expect("few values").to_be_bytes());
    for value in values {
        body.extend(u32::try_from(value.len()).expect("a short value").to_be_bytes());
        body.extend(value.bytes());
    }
    body.extend([0, 0]);
}

fn start_up(version: u32, settings: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for setting in settings.split(' ').filter(|setting| !setting.is_empty()) {
        let (name, value) = setting.split_once('=').expect("name=value");
        text(&mut body, name);
        text(&mut body, value);
    }
    body.push(0);
    packet(version, &body)
}

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = length(body.len() + 4).to_vec();
    bytes.extend(code.to_be_bytes());
    bytes.extend(body);
    bytes
}

fn length(body: usize) -> [u8; 4] {
    u32::try_from(body + 4).expect("a short message").to_be_bytes()
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend(text.bytes());
    body.push(0);
}

/// A reply in its short form: the type, and what of it must not differ.
///
/// `E25006`, `F57P01` for FATAL, `N01000`, `C[UPDATE 1]`, `ZI`, `D[1|x]`, `T[a,b]`, `A[channel,payload]`, `S[name=value]`,
/// `K`, `R0`; the bare type for the others.
pub(crate) fn reply(kind: u8, body: &[u8]) -> String {
    let letter = char::from(kind);
    match kind {
        b'A' => {
            let mut rest = &body[4..];
            format!("A[{},{}]", string(&mut rest), string(&mut rest))
        }
        b'C' => format!("C[{}]", string(&mut &*body)),
        b'D' => format!("D[{}]", values(body)),
        b'E' | b'N' => report(letter, body),
        b'R' => format!("R{}", body[3]),
        b'S' => {
            let mut rest = body;
            format!("S[{}={}]", string(&mut rest), string(&mut rest))
        }
        b'T' => format!("T[{}]", columns(body)),
        b'Z' => format!("Z{}", char::from(body[0])),
        _ => letter.to_string(),
    }
}

fn report(letter: char, body: &[u8]) -> String {
    let (mut rest, mut fatal, mut sqlstate) = (body, false, String::new());
    while let Some((&field, after)) = rest.split_first().filter(|(field, _)| **field != 0) {
        rest = after;
        let value = string(&mut rest);
        match field {
            b'V' => fatal = value == "FATAL",
            b'C' => sqlstate = value,
            _ => {}
        }
    }
    format!("{}{sqlstate}", if fatal { 'F' } else { letter })
}

fn values(body: &[u8]) -> String {
    let mut rest = &body[2..];
    let mut values = Vec::new();
    while let Some((size, after)) = rest.split_at_checked(4) {
        let size = i32::from_be_bytes(size.try_into().expect("four bytes"));
        let (value, after) = after.split_at(usize::try_from(size).unwrap_or(0));
        values.push(if size < 0 {
            "~".to_owned()
        } else {
            String::from_utf8_lossy(value).into_owned()
        });
        rest = after;
    }
    values.join("|")
}

fn columns(body: &[u8]) -> String {
    let mut rest = &body[2..];
    let mut names = Vec::new();
    while !rest.is_empty() {
        names.push(string(&mut rest));
        rest = &rest[18..];
    }
    names.join(",")
}

fn string(rest: &mut &[u8]) -> String {
    let end = rest.iter().position(|&byte| byte == 0).expect("a terminated string");
    let text = String::from_utf8_lossy(&rest[..end]).into_owned();
    *rest = &rest[end + 1..];
    text
}
