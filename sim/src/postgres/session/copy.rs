//! COPY in and out, in both forms of the query protocol.
//!
//! Rows are read and made by the engine; here they only pass.

use bytes::Bytes;

use super::halt::Halt;
use super::run::Ran;
use super::{Session, trace};
use crate::postgres::engine::{Completion, Progress};
use crate::wire::{Backend as Message, Frontend, Report};

impl Session {
    /// Takes rows from the client until it says that there are no more.
    pub(crate) async fn copy_in(&mut self, text: &str, columns: usize) -> Result<Box<Completion>, Halt> {
        let columns = u16::try_from(columns).unwrap_or(u16::MAX);
        self.send(&Message::CopyInResponse { columns, binary: false });
        self.flush().await?;
        let result = self.take_rows().await;
        match &result {
            Ok(completion) => self.ended(text, completion),
            Err(Halt::Fail(report)) => self.gave_up(text, &report.sqlstate),
            Err(_) => {}
        }
        result
    }

    async fn take_rows(&mut self) -> Result<Box<Completion>, Halt> {
        let pid = self.pid;
        loop {
            match self.read_message(false).await? {
                Frontend::CopyData(bytes) => self.engine(|engine, _| engine.copy_data(pid, &bytes)),
                Frontend::CopyDone => break,
                Frontend::CopyFail(reason) => {
                    let progress = self.engine(|engine, _| engine.copy_fail(pid, &reason));
                    return Err(match progress {
                        Progress::Failed(report) => report.into(),
                        _ => Report::error("57014", format!("COPY from stdin failed: {reason}")).into(),
                    });
                }
                // A pipelined Sync arrives before the rows; the server ignores it in this mode.
                Frontend::Flush | Frontend::Sync => {}
                other => {
                    let text = format!("unexpected {} during COPY from stdin", trace::kind(&other));
                    self.illegal(&text);
                    self.engine(|engine, _| engine.copy_fail(pid, &text));
                    return Err(Report::error("08P01", text).into());
                }
            }
        }
        let progress = self.engine(|engine, moment| engine.copy_done(pid, moment));
        match self.drive(progress).await? {
            Ran::Done(completion) => Ok(completion),
            Ran::CopyIn { .. } | Ran::CopyOut { .. } => Err(Report::error("XX000", "COPY inside COPY").into()),
        }
    }

    pub(crate) async fn copy_out(&mut self, columns: usize, lines: Vec<Vec<u8>>) -> Result<(), Halt> {
        let columns = u16::try_from(columns).unwrap_or(u16::MAX);
        self.send(&Message::CopyOutResponse { columns, binary: false });
        for line in lines {
            self.send(&Message::CopyData(Bytes::from(line)));
            self.room().await?;
        }
        self.send(&Message::CopyDone);
        Ok(())
    }
}
