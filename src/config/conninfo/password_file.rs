//! The password file: `host:port:dbname:user:password` lines, with libpq's permission rule and its way to compare.
//!
//! Read once, looked at for each host. Nothing of it shows in `Debug`.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// The file's text.
#[derive(Default)]
pub(crate) struct PasswordFile(Vec<u8>);

/// Why a file that is there is not used, as libpq does it: with a warning, not an error.
#[derive(Debug)]
pub(crate) enum Unread {
    Failed(io::Error),
    /// A folder, a pipe, a device.
    NotPlain,
    /// Others than its owner may read or write it.
    TooOpen,
}

impl PasswordFile {
    /// A file that is not there is an empty one.
    pub(crate) fn read(path: &Path) -> Result<Self, Unread> {
        let Ok(about) = fs::metadata(path) else {
            return Ok(Self::default());
        };
        if !about.is_file() {
            return Err(Unread::NotPlain);
        }
        #[cfg(unix)]
        if std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o077 != 0 {
            return Err(Unread::TooOpen);
        }
        super::read_file(path).map(Self).map_err(Unread::Failed)
    }

    /// The password of the first line that fits. Lines that are not UTF-8 are passed over.
    pub(crate) fn find(&self, host: &str, port: &str, dbname: &str, user: &str) -> Option<String> {
        let lines = self.0.split(|byte| *byte == b'\n');
        let mut lines = lines.filter_map(|line| str::from_utf8(line).ok());
        let password = lines.find_map(|line| {
            // A comment, even if a host's name began like this.
            let line = line.trim_end_matches('\r');
            let rest = Some(line).filter(|line| !line.starts_with('#'));
            [host, port, dbname, user]
                .iter()
                .try_fold(rest?, |rest, wanted| behind(rest, wanted))
        })?;
        let mut letters = password.chars();
        let mut plain = String::new();
        while let Some(letter) = letters.next() {
            match letter {
                ':' => break,
                '\\' => plain.push(letters.next().unwrap_or('\\')),
                letter => plain.push(letter),
            }
        }
        Some(plain)
    }
}

#[cfg(fuzzing)]
impl From<Vec<u8>> for PasswordFile {
    fn from(text: Vec<u8>) -> Self {
        Self(text)
    }
}

/// What is behind the first field of `line`, if that field is `*` or means `wanted`.
fn behind<'a>(line: &'a str, wanted: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let mut letters = line.chars();
    let mut wanted = wanted.chars();
    loop {
        let (letter, escaped) = match letters.next()? {
            '\\' => (letters.next()?, true),
            letter => (letter, false),
        };
        match wanted.next() {
            None if letter == ':' && !escaped => return Some(letters.as_str()),
            Some(expected) if expected == letter => {}
            _ => return None,
        }
    }
}

impl fmt::Debug for PasswordFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordFile(hidden)")
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "it could not be read: {error}"),
            Self::NotPlain => f.write_str("it is not a plain file"),
            Self::TooOpen => f.write_str("others than its owner may use it; its mode should be 0600 or less"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PasswordFile;

    #[test]
    fn the_first_fitting_line_counts() {
        let file = PasswordFile(
            b"#h:1:d:u:comment\nh:1:d:u:one:more\r\n*:*:e:u:a\\:b\\\\c\\\n::1:1:d:u:six\n\\:\\:2:1:d:u:escaped\n\xff\nlast:*:*:*:"
                .to_vec(),
        );
        let find = |host, port, dbname, user| file.find(host, port, dbname, user);
        assert_eq!(find("h", "1", "d", "u").as_deref(), Some("one"));
        assert_eq!(find("x", "2", "e", "u").as_deref(), Some("a:b\\c\\"));
        assert_eq!(find("::1", "1", "d", "u").as_deref(), Some("six"));
        assert_eq!(find("::2", "1", "d", "u").as_deref(), Some("escaped"));
        assert_eq!(find("last", "", "", "").as_deref(), Some(""));
        assert_eq!(find("#h", "1", "d", "u"), None);
        assert_eq!(find("h", "1", "d", "v"), None);
        assert_eq!(find("h1", "", "d", "u"), None);
        assert_eq!(format!("{file:?}"), "PasswordFile(hidden)");
    }

    #[test]
    #[cfg(unix)]
    fn a_file_that_others_can_read_is_not_used() {
        use std::fs::{self, Permissions};
        use std::os::unix::fs::PermissionsExt;

        use super::Unread;

        let path = std::env::temp_dir().join(format!("gdbpool-password-file-{}", std::process::id()));
        fs::write(&path, "*:*:*:*:x").expect("write the file");
        for (mode, used) in [(0o600, true), (0o400, true), (0o640, false), (0o601, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set its mode");
            match PasswordFile::read(&path) {
                Ok(file) => assert!(used && file.find("h", "1", "d", "u").is_some(), "{mode:o}"),
                Err(unread) => assert!(!used && matches!(unread, Unread::TooOpen), "{mode:o}: {unread}"),
            }
        }
        fs::remove_file(&path).expect("remove the file");
        assert!(matches!(
            PasswordFile::read(&std::env::temp_dir()),
            Err(Unread::NotPlain)
        ));
        assert_eq!(
            PasswordFile::read(&path)
                .expect("an empty one")
                .find("h", "1", "d", "u"),
            None
        );
    }
}
