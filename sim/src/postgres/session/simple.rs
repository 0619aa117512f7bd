//! The simple query protocol: a text of statements, run one after the other in one implicit transaction.
//!
//! ReadyForQuery is the caller's.

use std::sync::Arc;

use super::Session;
use super::halt::Halt;
use super::run::Ran;
use crate::postgres::engine::{Completion, Engine, Plan};
use crate::wire::Backend as Message;

impl Session {
    pub(crate) async fn simple(&mut self, text: &str) -> Result<(), Halt> {
        self.forget_unnamed();
        let stub = self.lock().stubs.find(text);
        if let Some(stub) = stub {
            return self.simple_stub(text, &stub).await;
        }
        let pid = self.pid;
        let statements = self.engine(|engine, _| engine.parse(text))?;
        if statements.is_empty() {
            self.send(&Message::EmptyQueryResponse);
            return Ok(());
        }
        let count = statements.len();
        for (place, statement) in statements.iter().enumerate() {
            let plan = self.engine(|engine, _| engine.prepare(pid, statement, &[]))?;
            self.statement(&plan, count > 1, place + 1 == count).await?;
        }
        Ok(())
    }

    async fn statement(&mut self, plan: &Plan, block: bool, last: bool) -> Result<(), Halt> {
        let pid = self.pid;
        let is_query = is_query(plan.text());
        if is_query {
            self.to_describe = plan.columns().map(Arc::from);
        }
        let start = |engine: &mut Engine, moment| engine.run(pid, plan, block, moment);
        let ran = self.run(plan.text(), start).await;
        if let Err(halt) = &ran
            && !fails_unplanned(halt)
        {
            self.describe_once();
        }
        let described = self.to_describe.take().is_none() && is_query;
        let completion = match ran? {
            Ran::Done(completion) => completion,
            Ran::CopyIn { columns } => self.copy_in(plan.text(), columns).await?,
            Ran::CopyOut {
                columns,
                lines,
                completion,
            } => {
                self.copy_out(columns, lines).await?;
                self.ended(plan.text(), &completion);
                completion
            }
        };
        if let Some(columns) = completion.columns.as_deref().or(plan.columns()) {
            if !described {
                self.describe_columns(columns, &[]);
            }
            self.send_notices();
            self.send_rows(&completion, plan.columns(), &[]).await?;
        }
        self.finish(&completion, last).await
    }

    /// The last statement's transaction ends before its CommandComplete: what fails then replaces it.
    async fn finish(&mut self, completion: &Completion, last: bool) -> Result<(), Halt> {
        if last {
            self.end_implicit().await?;
        }
        self.statement_deadline = None;
        self.send_notices();
        if completion.tag.is_empty() {
            self.send(&Message::EmptyQueryResponse);
        } else {
            self.send(&Message::CommandComplete(completion.tag.clone()));
        }
        if completion.tag == "COMMIT" && self.status() == b'I' {
            self.committed().await?;
        }
        Ok(())
    }
}

/// Whether a statement has failed before it ran: while it was planned, or checked against the transaction's mode.
fn fails_unplanned(halt: &Halt) -> bool {
    let Halt::Fail(report) = halt else { return false };
    matches!(&*report.sqlstate, "0A000" | "22012" | "25P02") || report.message.starts_with("cannot execute SELECT FOR")
}

/// Whether the rows of a statement are described before it runs.
fn is_query(text: &str) -> bool {
    let first = crate::sql::first_word(text);
    matches!(first.as_deref(), Some("select" | "with" | "values" | "table"))
}
