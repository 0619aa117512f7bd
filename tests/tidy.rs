//! The repository checks itself: headers, lengths, leftovers, the direction of imports, what machines may not do, and the
//! README against the manifest.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of `src/` with their floors: a room may use itself, the rooms on lower floors, and, on floor 0, where the
/// values are, its neighbours.
const ROOMS: [(&str, u8); 17] = [
    ("cancel", 0),
    ("config", 0),
    ("error", 0),
    ("lsn", 0),
    ("observe", 0),
    ("sql", 0),
    ("stream", 0),
    ("time", 0),
    ("runtime", 1),
    ("tls", 1),
    ("session", 2),
    ("pool", 3),
    ("topology", 4),
    ("route", 5),
    ("interaction", 6),
    ("listener", 6),
    ("interaction_pool", 7),
];

/// What a file whose header says "A plain machine" must not contain.
const NOT_IN_MACHINES: [&str; 9] = [
    "async",
    "await",
    "Condvar",
    "Instant::now",
    "Mutex",
    "RwLock",
    "spawn",
    "SystemTime",
    "thread",
];

const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 100;

#[test]
fn every_file_opens_with_its_header() {
    check(|file| {
        (!file.text.starts_with("//!"))
            .then(|| "does not open with `//!`".to_owned())
            .into_iter()
            .collect()
    });
}

#[test]
fn files_and_functions_are_short() {
    check(|file| {
        let lines = file.text.lines().count();
        let long_file = (lines > MAX_FILE_LINES).then(|| format!("has {lines} lines, over {MAX_FILE_LINES}"));
        let functions = function_lengths(&file.code)
            .into_iter()
            .filter(|(_, _, lines)| *lines > MAX_FUNCTION_LINES);
        let long_functions = functions.map(|(line, name, lines)| format!("{line}: fn {name} has {lines} lines"));
        long_file.into_iter().chain(long_functions).collect()
    });
}

#[test]
fn no_leftovers() {
    // Put together here, so that this file does not contain them.
    let mut words: Vec<String> = ["todo!", "unimplemented!", "dbg!"]
        .iter()
        .map(|word| format!("{word}("))
        .collect();
    words.extend([["#[ig", "nore"], ["FIX", "ME"], ["XX", "X"]].map(|halves| halves.concat()));
    check(|file| {
        words
            .iter()
            .filter(|word| file.text.contains(*word))
            .map(|word| format!("contains {word}"))
            .collect()
    });
}

#[test]
fn no_paths_of_a_machine() {
    let homes = ["home", "root", "Users"].map(|folder| format!("/{folder}/"));
    let mut findings = Vec::new();
    for path in files(&["rs", "md", "toml", "sh", "yml", "lock", "patch"]) {
        let text = read(&path);
        let found = homes.iter().filter(|home| text.contains(*home));
        findings.extend(found.map(|home| format!("{}: contains {home}", shown(&path))));
    }
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn imports_run_one_way() {
    let exports = exports(&code_only(&read(&root().join("src/lib.rs"))));
    check(|file| match room_of(&file.path) {
        Some(room) => wrong_imports(&room, &file.code, &exports),
        None => Vec::new(),
    });
}

#[test]
fn machines_are_plain() {
    check(|file| match is_machine(&file.text) {
        true => machine_sins(&file.code),
        false => Vec::new(),
    });
}

#[test]
fn readme_agrees_with_the_manifest() {
    let (readme, manifest) = (read(&root().join("README.md")), read(&root().join("Cargo.toml")));
    for (introduction, setting) in [("Rust 1.", "rust-version"), ("dition 20", "edition")] {
        let line = manifest.lines().find(|line| line.starts_with(&format!("{setting} = ")));
        let value = line
            .and_then(|line| line.split('"').nth(1))
            .expect("a setting of the workspace");
        let prefix = introduction.split(' ').next_back().expect("a last word");
        for mention in readme.split(introduction).skip(1) {
            let rest: String = mention.chars().take_while(char::is_ascii_digit).collect();
            assert_eq!(
                format!("{prefix}{rest}"),
                value,
                "README.md disagrees with {setting} in Cargo.toml"
            );
        }
    }
}

#[test]
fn the_checks_find_what_they_look_for() {
    let code =
        code_only("fn f<'a>(x: [u8; 2]) { /* fn g() { */ let c = '{'; \"}\"; br#\"a\"}\"#; }\nfn long() {\n\n}\n");
    assert_eq!(
        function_lengths(&code),
        [(1, "f".to_owned(), 1), (2, "long".to_owned(), 3)]
    );

    let exports = exports("pub use crate::pool::{Lease, ledger::Stats};\npub use self::time::Instant;\n");
    let used = "use crate::{Instant, pool::Ledger, time};\nuse crate::session;\nuse crate::Lease;\n";
    let findings = wrong_imports("session", used, &exports);
    assert_eq!(
        findings,
        [
            "1: uses pool, which is not below session",
            "3: uses pool, which is not below session"
        ]
    );
    assert_eq!(wrong_imports("pool", used, &exports), Vec::<String>::new());
    assert_eq!(
        wrong_imports("listener", "crate::interaction::run(); crate::attic::x()", &exports).len(),
        2
    );
    assert_eq!(
        wrong_imports("error", "crate::config::Limit", &exports),
        Vec::<String>::new()
    );

    assert!(is_machine("//! Queues. A plain\n//! machine.\n//!\n//! More.\n"));
    assert!(!is_machine("//! Queues.\n//!\n//! A plain machine is elsewhere.\n"));
    let machine = "fn f() { self.respawn(); }\n#[cfg(test)]\nmod tests { fn g() { spawn(); } }\n";
    assert_eq!(machine_sins(machine), Vec::<String>::new());
    assert_eq!(
        machine_sins(&machine.replace("respawn", "spawn")),
        ["1: a machine must not contain spawn"]
    );
}

/// A Rust file: as it is, and with comments and literals blanked out.
struct Source {
    code: String,
    path: PathBuf,
    text: String,
}

/// Runs `rule` over all Rust files and fails with everything it found.
fn check(rule: impl Fn(&Source) -> Vec<String>) {
    let paths = files(&["rs"]);
    assert!(
        paths.len() > 10,
        "the repository's files are not where they should be: {paths:?}"
    );
    let mut findings = Vec::new();
    for path in paths {
        let text = read(&path);
        let source = Source {
            code: code_only(&text),
            path,
            text,
        };
        findings.extend(
            rule(&source)
                .iter()
                .map(|finding| format!("{}: {finding}", shown(&source.path))),
        );
    }
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The repository's files with one of these extensions, in order; build results are left out.
fn files(extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry of the repository").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_symlink() {
                continue;
            } else if path.is_dir() {
                if ![".git", "artifacts", "corpus", "target"].contains(&name) {
                    folders.push(path);
                }
            } else if path
                .extension()
                .is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// `text` with comments and the contents of literals turned into spaces; lines stay where they are.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match blank_length(rest) {
            Some(length) => {
                code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
                length
            }
            None => {
                code.push(first);
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    code
}

/// How long the comment or literal is that `rest` begins with.
fn blank_length(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment_length(rest));
    }
    if let Some(body) = rest.strip_prefix('"') {
        return Some(1 + quoted_length(body, '"'));
    }
    if let Some(body) = rest.strip_prefix('\'') {
        if body.starts_with('\\') {
            return Some(1 + quoted_length(body, '\''));
        }
        // Anything longer than one letter after a single quote is a lifetime.
        let letter = body.chars().next()?.len_utf8();
        return body[letter..].starts_with('\'').then_some(2 + letter);
    }
    let hashes = rest.strip_prefix('r')?;
    let count = hashes.len() - hashes.trim_start_matches('#').len();
    let body = hashes[count..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(count));
    Some(rest.len() - body.len() + body.find(&end).map_or(body.len(), |at| at + end.len()))
}

/// Block comments nest.
fn block_comment_length(comment: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < comment.len() {
        let rest = &comment[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a quoted text after its opening quote, closing quote included.
fn quoted_length(body: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        if c == quote && !escaped {
            return at + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    body.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands in `code` as a whole word.
fn word_positions(code: &str, word: &str) -> Vec<usize> {
    let whole = |at: &usize| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let starts = !before.is_some_and(is_word);
        let ends = !word.ends_with(is_word) || !after.is_some_and(is_word);
        starts && ends
    };
    code.match_indices(word).map(|(at, _)| at).filter(whole).collect()
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// First line, name and number of lines of every function with a body.
fn function_lengths(code: &str) -> Vec<(usize, String, usize)> {
    let mut functions = Vec::new();
    for at in word_positions(code, "fn") {
        let name: String = code[at + 2..]
            .trim_start()
            .chars()
            .take_while(|c| is_word(*c))
            .collect();
        if name.is_empty() {
            continue;
        }
        let mut depth = 0_i32;
        for (offset, c) in code[at..].char_indices() {
            match c {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 && c == ';' {
                break;
            }
            if depth == 0 && c == '}' {
                let lines = code[at..at + offset].matches('\n').count() + 1;
                functions.push((line_of(code, at), name, lines));
                break;
            }
        }
    }
    functions
}

/// The room a file of `src/` is in; `lib.rs` is the map of the house and in none.
fn room_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?;
    let room = first.strip_suffix(".rs").unwrap_or(first);
    (room != "lib").then(|| room.to_owned())
}

fn floor_of(room: &str) -> Option<u8> {
    ROOMS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// Which room each type comes from that `lib.rs` exports.
fn exports(code: &str) -> BTreeMap<String, String> {
    let mut exports = BTreeMap::new();
    for statement in code.split("pub use ").skip(1) {
        let statement = statement.split(';').next().unwrap_or_default();
        let mut words = statement
            .split(|c| !is_word(c))
            .filter(|word| !word.is_empty() && !["crate", "self"].contains(word));
        let Some(room) = words.next() else { continue };
        exports.extend(words.map(|word| (word.to_owned(), room.to_owned())));
    }
    exports
}

/// What `code` in `room` takes from rooms that are not below it, or that are not in the list.
fn wrong_imports(room: &str, code: &str, exports: &BTreeMap<String, String>) -> Vec<String> {
    let Some(floor) = floor_of(room) else {
        return vec![format!("room {room} has no floor yet: give it one in tests/tidy.rs")];
    };
    let mut findings = Vec::new();
    for at in word_positions(code, "crate::") {
        let line = line_of(code, at);
        for name in first_names(&code[at + "crate::".len()..]) {
            let used = exports
                .get(&name)
                .filter(|_| floor_of(&name).is_none())
                .cloned()
                .unwrap_or(name);
            match floor_of(&used) {
                None => findings.push(format!(
                    "{line}: uses {used}, which is neither a room nor exported by lib.rs"
                )),
                Some(below) if used == room || below < floor || below == 0 => {}
                Some(_) => findings.push(format!("{line}: uses {used}, which is not below {room}")),
            }
        }
    }
    findings
}

/// The names directly after `crate::`: one, or those of a group in braces.
fn first_names(rest: &str) -> Vec<String> {
    let word = |text: &str| {
        text.trim_start()
            .chars()
            .take_while(|c| is_word(*c))
            .collect::<String>()
    };
    let Some(group) = rest.strip_prefix('{') else {
        return vec![word(rest)];
    };
    let mut names = Vec::new();
    let (mut depth, mut start) = (0_i32, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(word(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Whether the first paragraph of the header says so.
fn is_machine(text: &str) -> bool {
    let header = text.lines().map_while(|line| line.strip_prefix("//!"));
    let paragraph: Vec<&str> = header.map(str::trim).take_while(|line| !line.is_empty()).collect();
    paragraph.join(" ").contains("A plain machine")
}

/// What a machine's code, its tests left out, contains of [`NOT_IN_MACHINES`].
fn machine_sins(code: &str) -> Vec<String> {
    let end = code.find("#[cfg(test)]\nmod ").unwrap_or(code.len());
    let positions = |word: &'static str| word_positions(&code[..end], word).into_iter().map(move |at| (at, word));
    let found = NOT_IN_MACHINES.iter().flat_map(|word| positions(word));
    found
        .map(|(at, word)| format!("{}: a machine must not contain {word}", line_of(code, at)))
        .collect()
}
