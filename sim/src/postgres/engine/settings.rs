//! Settings (GUCs): which there are, what values they take, how they are shown, and what a session has set.
//!
//! Asked by SET, SHOW and everything that a setting steers. A plain machine. Values are kept in their base units, as
//! `pg_settings` has them.

mod table;
mod values;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

pub(crate) use self::table::SETTINGS;
pub(crate) use self::values::{Values, isolation_named};
use crate::wire::Report;

/// What values a setting takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Bool,
    /// The first names are shown in hints.
    Enum(&'static [&'static str]),
    /// From, to, unit.
    Integer(i64, i64, Unit),
    Real,
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    Kilobytes,
    Milliseconds,
    None,
    /// Of 8 kB.
    Pages,
    Seconds,
}

/// Who may change a setting, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changes {
    Anytime,
    Never,
    /// By the configuration file.
    Reload,
    Restart,
}

/// A setting the server knows.
#[derive(Debug)]
pub(crate) struct Setting {
    /// As it is shown; names are compared without case.
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    pub(crate) kind: Kind,
    pub(crate) changes: Changes,
    /// Told to the client as ParameterStatus.
    pub(crate) reported: bool,
}

/// The setting of that name, without regard to case.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    static BY_NAME: LazyLock<BTreeMap<String, &'static Setting>> = LazyLock::new(|| {
        let named = |setting: &'static Setting| (setting.name.to_ascii_lowercase(), setting);
        SETTINGS.iter().map(named).collect()
    });
    BY_NAME.get(&*key_of(name)).copied()
}

/// The name in lower case.
pub(crate) fn key_of(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}

/// Whether the name has the form of a setting that an application may make up: with a dot.
pub(crate) fn is_custom(name: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$')
    };
    name.contains('.') && name.split('.').all(part)
}

pub(crate) fn unknown(name: &str) -> Report {
    Report::error("42704", format!("unrecognized configuration parameter \"{name}\""))
}

impl Setting {
    /// Checks a value and brings it into its base form.
    pub(crate) fn check(&self, value: &str) -> Result<String, Report> {
        let invalid = || {
            Report::error(
                "22023",
                format!("invalid value for parameter \"{}\": \"{value}\"", self.name),
            )
        };
        match self.kind {
            Kind::Bool => {
                let flag = super::types::text::read(super::types::BOOL, value);
                let no = |_| Report::error("22023", format!("parameter \"{}\" requires a Boolean value", self.name));
                Ok(if flag.map_err(no)?.is_true() { "on" } else { "off" }.to_owned())
            }
            Kind::Enum(names) => {
                let value = value.to_ascii_lowercase();
                let on = ["true", "yes", "1"].contains(&value.as_str()) && names.contains(&"on");
                let off = ["false", "no", "0"].contains(&value.as_str()) && names.contains(&"off");
                match names.iter().find(|name| **name == value) {
                    Some(name) => Ok((*name).to_owned()),
                    None if on => Ok("on".to_owned()),
                    None if off => Ok("off".to_owned()),
                    None => Err(invalid().hint(format!("Available values: {}.", names.join(", ")))),
                }
            }
            Kind::Integer(least, most, unit) => {
                let number = read_with_unit(value, unit).ok_or_else(invalid)?;
                if (least..=most).contains(&number) {
                    return Ok(number.to_string());
                }
                let shown = unit.shown();
                let blank = if shown.is_empty() { "" } else { " " };
                Err(Report::error(
                    "22023",
                    format!(
                        "{number}{blank}{shown} is outside the valid range for parameter \"{}\" ({least} .. {most})",
                        self.name
                    ),
                ))
            }
            Kind::Real => value
                .trim()
                .parse::<f64>()
                .map(|number| number.to_string())
                .map_err(|_| invalid()),
            Kind::Text => self.check_text(value, invalid),
        }
    }

    fn check_text(&self, value: &str, invalid: impl Fn() -> Report) -> Result<String, Report> {
        match self.name {
            "TimeZone" => {
                let known = ["UTC", "GMT", "Etc/UTC", "Zulu", "UCT", "Universal", "Greenwich"];
                if let Some(zone) = known.iter().find(|zone| zone.eq_ignore_ascii_case(value)) {
                    return Ok((*zone).to_owned());
                }
                let shape = |part: &str| {
                    !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_+-".contains(c))
                };
                const AREAS: [&str; 10] = [
                    "africa",
                    "america",
                    "antarctica",
                    "arctic",
                    "asia",
                    "atlantic",
                    "australia",
                    "europe",
                    "indian",
                    "pacific",
                ];
                let area = value.split('/').next().unwrap_or_default().to_ascii_lowercase();
                if value.contains('/') && value.split('/').all(shape) && AREAS.contains(&area.as_str()) {
                    return Ok(title(value));
                }
                Err(invalid())
            }
            "client_encoding" => {
                let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
                match plain.to_ascii_uppercase().as_str() {
                    "UTF8" | "UNICODE" => Ok("UTF8".to_owned()),
                    "LATIN1" | "SQLASCII" | "WIN1252" => Err(Report::error(
                        "0A000",
                        format!("gdbpool-sim does not support the encoding {value}"),
                    )),
                    _ => Err(invalid()),
                }
            }
            "DateStyle" => {
                let words = value.to_ascii_uppercase();
                let mut order = "MDY";
                for word in words.split(',').map(str::trim) {
                    match word {
                        "ISO" | "" => {}
                        "MDY" | "DMY" | "YMD" => order = word,
                        "SQL" | "POSTGRES" | "GERMAN" => {
                            return Err(Report::error(
                                "0A000",
                                format!("gdbpool-sim does not support the date style {word}"),
                            ));
                        }
                        _ => return Err(invalid()),
                    }
                }
                Ok(format!("ISO, {order}"))
            }
            "application_name" => {
                let ascii = |c: char| if (' '..='~').contains(&c) { c } else { '?' };
                let clean: String = value.chars().map(ascii).collect();
                Ok(super::types::text::cut(&clean, 63).to_owned())
            }
            _ => Ok(value.to_owned()),
        }
    }

    /// The value as SHOW gives it.
    pub(crate) fn show(&self, value: &str) -> String {
        let Kind::Integer(_, _, unit) = self.kind else {
            return value.to_owned();
        };
        let Ok(number) = value.parse::<i64>() else {
            return value.to_owned();
        };
        if number <= 0 {
            return value.to_owned();
        }
        let (mut number, steps) = match unit {
            Unit::None => return value.to_owned(),
            Unit::Milliseconds => (number, TIMES),
            Unit::Seconds => (number * 1_000, TIMES),
            Unit::Bytes => (number, SIZES),
            Unit::Kilobytes => (number * 1_024, SIZES),
            Unit::Pages => (number * 8_192, SIZES),
        };
        let mut name = steps[0].1;
        for (factor, unit) in &steps[1..] {
            if number % factor != 0 {
                break;
            }
            number /= factor;
            name = unit;
        }
        format!("{number}{name}")
    }

    /// The unit's name in `pg_settings`.
    pub(crate) fn unit(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Integer(_, _, Unit::None) => None,
            Kind::Integer(_, _, unit) => Some(unit.shown()),
            _ => None,
        }
    }
}

impl Unit {
    fn shown(self) -> &'static str {
        match self {
            Self::Bytes => "B",
            Self::Kilobytes => "kB",
            Self::Milliseconds => "ms",
            Self::None => "",
            Self::Pages => "8kB",
            Self::Seconds => "s",
        }
    }
}

/// Units, each so many times the one before.
const TIMES: &[(i64, &str)] = &[(1, "ms"), (1_000, "s"), (60, "min"), (60, "h"), (24, "d")];
const SIZES: &[(i64, &str)] = &[(1, "B"), (1_024, "kB"), (1_024, "MB"), (1_024, "GB"), (1_024, "TB")];

fn read_with_unit(value: &str, unit: Unit) -> Option<i64> {
    let value = value.trim();
    let at = value.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(value.len());
    let number: f64 = value[..at].trim().parse().ok()?;
    let suffix = value[at..].trim();
    let steps = match unit {
        Unit::Milliseconds | Unit::Seconds => TIMES,
        _ => SIZES,
    };
    let base = match unit {
        Unit::None | Unit::Bytes | Unit::Milliseconds => 1.0,
        Unit::Seconds => 1_000.0,
        Unit::Kilobytes => 1_024.0,
        Unit::Pages => 8_192.0,
    };
    let factor = if suffix.is_empty() {
        base
    } else if unit == Unit::None {
        return None;
    } else {
        let mut factor = 1.0;
        let mut found = false;
        for (times, name) in steps {
            #[expect(clippy::cast_precision_loss, reason = "small factors")]
            {
                factor *= *times as f64;
            }
            if *name == suffix {
                found = true;
                break;
            }
        }
        if suffix == "us" && matches!(unit, Unit::Milliseconds | Unit::Seconds) {
            (factor, found) = (0.001, true);
        }
        found.then_some(factor)?
    };
    let whole = (number * factor / base).round();
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    (whole.abs() < 9e15).then_some(whole as i64)
}

/// `EUROPE/rome` as the zone's file is named.
fn title(zone: &str) -> String {
    let mut start = true;
    zone.chars()
        .map(|c| {
            let c = if start {
                c.to_ascii_uppercase()
            } else {
                c.to_ascii_lowercase()
            };
            start = matches!(c, '/' | '_' | '-');
            c
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_in_any_unit_and_shown_in_the_largest() {
        let check = |name: &str, value: &str| {
            let setting = find(name).expect("a setting");
            setting
                .check(value)
                .map(|value| setting.show(&value))
                .map_err(|report| report.message)
        };
        assert_eq!(check("statement_timeout", "90s").as_deref(), Ok("90s"));
        assert_eq!(check("statement_timeout", "1.5s").as_deref(), Ok("1500ms"));
        assert_eq!(check("statement_timeout", "1h").as_deref(), Ok("1h"));
        assert_eq!(check("work_mem", "2048kB").as_deref(), Ok("2MB"));
        assert_eq!(check("synchronous_commit", "false").as_deref(), Ok("off"));
        assert_eq!(check("timezone", "EUROPE/rome").as_deref(), Ok("Europe/Rome"));
        assert_eq!(
            check("work_mem", "1").as_ref().map_err(String::as_str),
            Err("1 kB is outside the valid range for parameter \"work_mem\" (64 .. 2147483647)")
        );
        assert!(is_custom("my.tenant") && !is_custom("tenant"));
    }
}
