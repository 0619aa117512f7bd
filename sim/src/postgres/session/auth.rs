//! How a client proves who it is: trust, a password in the clear, MD5, SCRAM-SHA-256.
//!
//! A step of the start-up. Passwords are never kept longer than the comparison takes, and never shown.

use std::fmt::Write as _;

use md5::{Digest, Md5};

use super::halt::Halt;
use super::{Session, trace};
use crate::postgres::cluster::{Login, Method};
use crate::random::Stream;
use crate::wire::{Backend as Message, Frontend, Report};

impl Session {
    /// Lets the client prove that it is `user`; AuthenticationOk is sent then.
    pub(crate) async fn authenticate(&mut self, user: &str) -> Result<(), Halt> {
        let login = self.lock().users.get(user).cloned();
        let Some(login) = login else {
            // Nobody asks a stranger for a password; that there is no such role shows afterwards.
            self.send(&Message::AuthenticationOk);
            let text = format!("role \"{user}\" does not exist");
            return Err(Halt::Fatal(Report::fatal("28000", text)));
        };
        match &login.method {
            Method::Trust => {}
            Method::Cleartext(password) => {
                self.ask(&Message::AuthenticationCleartextPassword).await?;
                let given = self.password().await?;
                self.admit(user, given.strip_suffix(&[0]) == Some(password.as_bytes()))?;
            }
            Method::Md5(password) => {
                let salt = self.random("salt").to_be_bytes();
                let salt = [salt[0], salt[1], salt[2], salt[3]];
                self.ask(&Message::AuthenticationMd5Password(salt)).await?;
                let given = self.password().await?;
                let expected = md5_answer(user, password, salt);
                self.admit(user, given.strip_suffix(&[0]) == Some(&expected))?;
            }
            Method::Scram(_) => self.scram(user, &login).await?,
        }
        self.send(&Message::AuthenticationOk);
        Ok(())
    }

    async fn ask(&mut self, message: &Message) -> Result<(), Halt> {
        self.send(message);
        self.flush().await
    }

    async fn password(&mut self) -> Result<Vec<u8>, Halt> {
        match self.read_message(false).await? {
            Frontend::Password(bytes) => Ok(bytes),
            other => {
                let kind = trace::kind(&other);
                self.illegal(&format!("{kind} instead of a password"));
                let text = format!("expected password response, got {kind}");
                Err(Halt::Fatal(Report::fatal("08P01", text)))
            }
        }
    }

    fn admit(&self, user: &str, right: bool) -> Result<(), Halt> {
        if right {
            return Ok(());
        }
        let text = format!("password authentication failed for user \"{user}\"");
        Err(Halt::Fatal(Report::fatal("28P01", text)))
    }

    async fn scram(&mut self, user: &str, login: &Login) -> Result<(), Halt> {
        let Method::Scram(verifier) = &login.method else {
            return Ok(());
        };
        self.ask(&Message::AuthenticationSasl(vec!["SCRAM-SHA-256"])).await?;
        let first = sasl_initial(&self.password().await?).ok_or_else(|| malformed("malformed SCRAM message"))?;
        let nonce = format!(
            "{:016x}{:016x}",
            self.random("nonce"),
            self.random("nonce, second half")
        );
        let (exchange, answer) = verifier.begin(&first, &nonce).map_err(malformed)?;
        self.ask(&Message::AuthenticationSaslContinue(answer.into_bytes()))
            .await?;
        let last = self.password().await?;
        let last = String::from_utf8(last).map_err(|_| malformed("malformed SCRAM message"))?;
        match exchange.finish(&last) {
            Ok(proof) => {
                self.send(&Message::AuthenticationSaslFinal(proof.into_bytes()));
                Ok(())
            }
            Err(Some(text)) => Err(malformed(text)),
            Err(None) => self.admit(user, false),
        }
    }

    fn random(&self, what: &str) -> u64 {
        Stream::new(self.shared.seed, what, u64::from(self.pid.unsigned_abs())).at(0)
    }
}

fn malformed(text: &str) -> Halt {
    Halt::Fatal(Report::fatal("08P01", text))
}

/// The client's first message inside a SASLInitialResponse for SCRAM-SHA-256.
fn sasl_initial(body: &[u8]) -> Option<String> {
    let end = body.iter().position(|&byte| byte == 0)?;
    if &body[..end] != b"SCRAM-SHA-256" {
        return None;
    }
    let rest = &body[end + 1..];
    let (length, data) = rest.split_at_checked(4)?;
    let length = usize::try_from(i32::from_be_bytes(length.try_into().ok()?)).ok()?;
    (data.len() == length).then(|| String::from_utf8(data.to_vec()).ok())?
}

/// What a client answers to an MD5 request, without the terminating zero.
fn md5_answer(user: &str, password: &str, salt: [u8; 4]) -> Vec<u8> {
    let inner = hex(&[password.as_bytes(), user.as_bytes()]);
    format!("md5{}", hex(&[inner.as_bytes(), &salt])).into_bytes()
}

fn hex(parts: &[&[u8]]) -> String {
    let mut digest = Md5::new();
    for part in parts {
        digest.update(part);
    }
    digest.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
