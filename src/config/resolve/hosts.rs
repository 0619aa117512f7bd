//! The host list: `host`, `hostaddr` and `port` side by side, and the password for each entry.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::super::conninfo::{Parameters, PasswordFile, Refusal, Sources};
use super::super::target::{Host, HostTarget, Secret};
use super::values;

/// PostgreSQL's.
const PORT: u16 = 5432;

/// Where a server is looked for if nothing says where, and no folder of sockets is known.
const LOCAL: &str = "localhost";

/// The entries, in order. `dbname` is the user's name if none is given.
pub(super) fn hosts(
    parameters: &Parameters,
    sources: Option<&Sources>,
    user: &str,
    dbname: &str,
) -> Result<Vec<HostTarget>, Refusal> {
    let addresses: Vec<&str> = parameters
        .filled("hostaddr")
        .map_or_else(Vec::new, |list| list.split(',').collect());
    let names: Vec<&str> = parameters
        .filled("host")
        .map_or_else(Vec::new, |list| list.split(',').collect());
    let count = if addresses.is_empty() {
        names.len().max(1)
    } else {
        addresses.len()
    };
    if !names.is_empty() && names.len() != count {
        let what = format!("has {count} values, and host has {}", names.len());
        return Err(values::bad(parameters, "hostaddr", &what));
    }
    let ports = ports(parameters, count)?;
    let file = password_file(parameters, sources);
    (0..count)
        .map(|at| {
            let hostaddr = match addresses.get(at).filter(|text| !text.is_empty()) {
                Some(text) => Some(address(parameters, text)?),
                None => None,
            };
            let name = names.get(at).copied().unwrap_or_default();
            let host = host(name, hostaddr, sources);
            let port = ports[at];
            let password = match parameters.filled("password") {
                Some(password) => Some(password.to_owned()),
                None => file.find(&called(&host, sources), &port.to_string(), dbname, user),
            };
            let password = password.filter(|password| !password.is_empty());
            Ok(HostTarget {
                host,
                hostaddr,
                port,
                password: password.as_deref().map(Secret::new),
            })
        })
        .collect()
}

/// One port is everybody's; an empty one is the default.
fn ports(parameters: &Parameters, count: usize) -> Result<Vec<u16>, Refusal> {
    let Some(list) = parameters.filled("port") else {
        return Ok(vec![PORT; count]);
    };
    let ports: Vec<u16> = list
        .split(',')
        .map(|text| match text {
            "" => Ok(PORT),
            text => {
                let number = values::integer(text).and_then(|number| u16::try_from(number).ok());
                let bounds = "is not a number from 1 to 65535";
                number
                    .filter(|port| *port > 0)
                    .ok_or_else(|| values::bad(parameters, "port", bounds))
            }
        })
        .collect::<Result<_, _>>()?;
    match ports.len() {
        1 => Ok(vec![ports[0]; count]),
        same if same == count => Ok(ports),
        other => {
            let what = format!("has {other} values for {count} hosts");
            Err(values::bad(parameters, "port", &what))
        }
    }
}

fn address(parameters: &Parameters, text: &str) -> Result<IpAddr, Refusal> {
    text.parse()
        .map_err(|_| values::bad(parameters, "hostaddr", "is not an IP address"))
}

fn host(name: &str, hostaddr: Option<IpAddr>, sources: Option<&Sources>) -> Host {
    match (name, hostaddr) {
        ("", Some(address)) => Host::Tcp(address.to_string()),
        ("", None) => match sources.and_then(|sources| sources.socket_folder.clone()) {
            Some(folder) => Host::Unix(folder),
            None => Host::Tcp(LOCAL.into()),
        },
        (path, None) if is_socket(path) => Host::Unix(PathBuf::from(path)),
        (name, _) => Host::Tcp(name.into()),
    }
}

/// A path, or a name in Linux's abstract namespace.
fn is_socket(name: &str) -> bool {
    name.starts_with(['/', '@']) || (cfg!(windows) && Path::new(name).is_absolute())
}

/// What the password file calls it: the local server has one name, by whichever way it is reached.
fn called(host: &Host, sources: Option<&Sources>) -> String {
    match host {
        Host::Unix(folder) if sources.is_some_and(|sources| sources.socket_folder.as_ref() == Some(folder)) => {
            LOCAL.to_owned()
        }
        host => host.to_string(),
    }
}

/// Empty if there is none, or if none is to be read.
fn password_file(parameters: &Parameters, sources: Option<&Sources>) -> PasswordFile {
    let Some(sources) = sources.filter(|_| parameters.filled("password").is_none()) else {
        return PasswordFile::default();
    };
    let named = parameters.filled("passfile").map(PathBuf::from);
    let Some(path) = named.or_else(|| sources.password_file()) else {
        return PasswordFile::default();
    };
    PasswordFile::read(&path).unwrap_or_else(|unread| {
        tracing::warn!(path = %path.display(), "the password file is not used: {unread}");
        PasswordFile::default()
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::conninfo::{Sources, parse};
    use super::super::super::target::Host;
    use super::hosts;

    /// Each entry as `host hostaddr port`.
    fn of(text: &str, sources: Option<&Sources>) -> Vec<String> {
        let parameters = parse(text).expect("a sound string");
        let hosts = hosts(&parameters, sources, "u", "d").expect("sound hosts");
        let entry = |host: &super::HostTarget| {
            let kind = if matches!(host.host, Host::Unix(_)) {
                "unix:"
            } else {
                ""
            };
            let address = host.hostaddr.map_or_else(|| "-".into(), |address| address.to_string());
            format!("{kind}{} {address} {}", host.host, host.port)
        };
        hosts.iter().map(entry).collect()
    }

    #[test]
    fn lists_stand_side_by_side() {
        let sources = Sources {
            socket_folder: Some("/run/pg".into()),
            ..Sources::default()
        };
        assert_eq!(of("", None), ["localhost - 5432"]);
        assert_eq!(of("", Some(&sources)), ["unix:/run/pg - 5432"]);
        assert_eq!(
            of("host=a,,/s,@n port=7", None),
            ["a - 7", "localhost - 7", "unix:/s - 7", "unix:@n - 7"]
        );
        assert_eq!(of("host=a,b port=1,", None), ["a - 1", "b - 5432"]);
        assert_eq!(
            of("host=a,,b hostaddr=,::1,127.0.0.1 port=1,2,3", None),
            ["a - 1", "::1 ::1 2", "b 127.0.0.1 3"]
        );
        assert_eq!(
            of("postgresql://a:1,[::1]:2,c/d", None),
            ["a - 1", "::1 - 2", "c - 5432"]
        );
    }
}
