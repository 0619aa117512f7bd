//! What the command can be asked to do, read from its arguments.

mod explore;
mod progress;
mod replay;

use std::path::PathBuf;

pub(crate) use self::explore::explore;
pub(crate) use self::replay::replay;

/// What `--help` prints.
pub(crate) const USAGE: &str = "\
gdbpool-sim explore [--seeds N] [--seed S] [--minutes M] [--threads T] [--out FOLDER] [--keep-going]
    Runs the scenarios of the seeds S, S+1, ... until N have run, M minutes are over, or one has failed; shrinks that one,
    writes it to FOLDER and prints the line that replays it. Exit status 1 then. Default: 1000 seeds from 1.
gdbpool-sim replay FILE|SEED
    Runs one scenario again and says what is wrong with it.";

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Explore(Explore),
    Help,
    Replay(What),
}

/// Which scenarios to run, and what to do about failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Explore {
    pub(crate) seeds: u64,
    pub(crate) first: u64,
    pub(crate) minutes: Option<u64>,
    pub(crate) threads: usize,
    pub(crate) out: PathBuf,
    pub(crate) keep_going: bool,
}

/// Which scenario to run again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum What {
    File(PathBuf),
    Seed(u64),
}

impl Command {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        match arguments {
            [verb, rest @ ..] if verb == "explore" => Explore::parse(rest).map(Self::Explore),
            [verb, what] if verb == "replay" => Ok(Self::Replay(match what.parse() {
                Ok(seed) => What::Seed(seed),
                Err(_) => What::File(PathBuf::from(what)),
            })),
            [] => Ok(Self::Help),
            [verb] if ["--help", "-h", "help"].contains(&verb.as_str()) => Ok(Self::Help),
            [verb, ..] if verb == "replay" => Err("replay needs one file or one seed".to_owned()),
            [verb, ..] => Err(format!("there is no command {verb:?}")),
        }
    }
}

impl Explore {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut options = Self {
            seeds: 1_000,
            first: 1,
            minutes: None,
            threads: cores,
            out: PathBuf::from("target/gdbpool-sim"),
            keep_going: false,
        };
        let mut given = false;
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            if name == "--keep-going" {
                options.keep_going = true;
                continue;
            }
            let value = rest.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number = || {
                value
                    .parse::<u64>()
                    .map_err(|_| format!("{name} needs a number, not {value:?}"))
            };
            let positive = || match number()? {
                0 => Err(format!("{name} needs a number above zero")),
                number => Ok(number),
            };
            match name.as_str() {
                "--minutes" => options.minutes = Some(positive()?),
                "--out" => options.out = PathBuf::from(value),
                "--seed" => options.first = number()?,
                "--seeds" => (options.seeds, given) = (positive()?, true),
                "--threads" => options.threads = usize::try_from(positive()?).unwrap_or(cores),
                _ => return Err(format!("there is no option {name:?}")),
            }
        }
        if options.minutes.is_some() && !given {
            options.seeds = u64::MAX;
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Command, String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        Command::parse(&words)
    }

    #[test]
    fn arguments_are_read() {
        let Ok(Command::Explore(options)) = parse("explore --seeds 5 --seed 7 --threads 2 --keep-going") else {
            panic!("not understood");
        };
        assert_eq!((options.seeds, options.first, options.threads), (5, 7, 2));
        assert!(options.keep_going && options.minutes.is_none());
        let Ok(Command::Explore(options)) = parse("explore --minutes 3") else {
            panic!("not understood");
        };
        assert_eq!((options.seeds, options.minutes), (u64::MAX, Some(3)));
        assert_eq!(parse("replay 12"), Ok(Command::Replay(What::Seed(12))));
        assert_eq!(parse("replay a.json"), Ok(Command::Replay(What::File("a.json".into()))));
        assert_eq!(parse(""), Ok(Command::Help));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, name) in [
            ("explore --seeds", "--seeds"),
            ("explore --seeds x", "\"x\""),
            ("explore --speed 1", "--speed"),
            ("explore --seeds 0", "--seeds"),
            ("explore --minutes 0", "--minutes"),
            ("explore --threads 0", "--threads"),
            ("replay", "replay"),
            ("replay 1 2", "replay"),
            ("run", "\"run\""),
        ] {
            let wrong = parse(text).expect_err(text);
            assert!(wrong.contains(name), "{wrong}");
        }
    }
}
