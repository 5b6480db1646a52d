//! Who a cookie belongs to. One question travels alone; under a connect storm the
//! questions that wait while [`CALLS`] calls are under way travel together.

use std::sync::Arc;

use corecast_proto::logic as pb;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::logic_client::{LogicClient, LogicError};

/// Calls to logic under way at a time.
const CALLS: usize = 4;
/// Sessions in one call.
const BATCH: usize = 256;
/// Questions that wait; beyond them a connection waits to be asked about.
const WAITING: usize = 4_096;

/// Asks logic, in batches. Cheap to clone.
#[derive(Clone)]
pub(super) struct Verifier {
    questions: mpsc::Sender<Question>,
}

struct Question {
    sid: String,
    answer: oneshot::Sender<Result<pb::Session, LogicError>>,
}

impl Verifier {
    /// Starts the task; it ends with the last handle.
    pub(super) fn start(logic: LogicClient) -> Self {
        let (questions, inbox) = mpsc::channel(WAITING);
        tokio::spawn(run(logic, inbox));
        Self { questions }
    }

    /// Whose session this is; `None`: nobody's.
    pub(super) async fn verify(&self, sid: &str) -> Result<Option<pb::Session>, LogicError> {
        let (answer, result) = oneshot::channel();
        let question = Question { sid: sid.to_owned(), answer };
        self.questions.send(question).await.map_err(|_| LogicError::Unreachable)?;
        let session = result.await.map_err(|_| LogicError::Unreachable)??;
        Ok(session.valid.then_some(session))
    }
}

async fn run(logic: LogicClient, mut inbox: mpsc::Receiver<Question>) {
    let calls = Arc::new(Semaphore::new(CALLS));
    loop {
        let call = calls.clone().acquire_owned().await.expect("never closed");
        let mut batch = Vec::new();
        if inbox.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        // Connections that came together ask together: let the rest of them get here.
        tokio::task::yield_now().await;
        while batch.len() < BATCH
            && let Ok(question) = inbox.try_recv()
        {
            batch.push(question);
        }
        let logic = logic.clone();
        tokio::spawn(async move {
            ask(&logic, batch).await;
            drop(call);
        });
    }
}

async fn ask(logic: &LogicClient, mut batch: Vec<Question>) {
    let sids = batch.iter_mut().map(|question| std::mem::take(&mut question.sid)).collect::<Vec<_>>();
    let asked = sids.len();
    let result = logic.verify(pb::VerifyRequest { sids, from_store: false }).await;
    let result = result.and_then(|reply| complete(reply, asked));
    match result {
        Ok(sessions) => {
            for (question, session) in batch.into_iter().zip(sessions) {
                // A connection that is gone needs no answer.
                let _ = question.answer.send(Ok(session));
            }
        }
        Err(error) => {
            for question in batch {
                let _ = question.answer.send(Err(error.clone()));
            }
        }
    }
}

/// An answer that does not match the question is no answer: nobody is logged out by it.
pub(super) fn complete(reply: pb::VerifyReply, asked: usize) -> Result<Vec<pb::Session>, LogicError> {
    if reply.sessions.len() == asked {
        return Ok(reply.sessions);
    }
    let message = format!("{asked} sessions asked, {} answered", reply.sessions.len());
    Err(LogicError::Refused { code: tonic::Code::Internal, message })
}
