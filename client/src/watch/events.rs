//! Every change of a namespace, in order.

use inventory_sentinel::v1;

use super::{ResumableResponse, ResumingStream};
use crate::{
    convert, operation_errors::WatchError, scope::Scope, transport::stubs::events_client, types::event::Event,
};

/// A stream of every change of a namespace. Made by [`Namespace::events`](crate::Namespace::events).
#[derive(Debug)]
#[must_use = "nothing is watched before next()"]
pub struct Events {
    scope: Scope,
    token: String,
    from_oldest: bool,
    stream: Option<ResumingStream<v1::WatchResponse>>,
}

/// Changes, in order within each partition.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Changes {
    /// Empty: nothing changed since the last response.
    pub events: Vec<Event>,
    /// The position after them. Store it in one transaction with their effects.
    pub resume_token: String,
}

impl Events {
    pub(crate) fn new(scope: Scope) -> Events {
        Events { scope, token: String::new(), from_oldest: false, stream: None }
    }

    /// Starts after this [`Changes::resume_token`]. An empty one means none.
    pub fn after(mut self, resume_token: impl Into<String>) -> Self {
        self.token = resume_token.into();
        self
    }

    /// Without a token: starts with the oldest change that is kept, instead of the next one.
    pub fn from_oldest(mut self) -> Self {
        self.from_oldest = true;
        self
    }

    /// The next changes; at least once a second an empty list. Resumes after lost connections and server restarts.
    ///
    /// # Errors
    /// See [`WatchError`]; [`WatchError::Compacted`] is the one to handle. A call after an error resumes at the same
    /// position.
    pub async fn next(&mut self) -> Result<Changes, WatchError> {
        let Events { scope, token, from_oldest, stream } = self;
        let stream = stream.get_or_insert_with(|| open(scope, token, *from_oldest));
        let response = stream.next().await?.response;
        let events = response.events.into_iter().map(convert::event).collect::<Result<_, _>>()?;
        Ok(Changes { events, resume_token: response.resume_token })
    }
}

fn open(scope: &Scope, token: &str, from_oldest: bool) -> ResumingStream<v1::WatchResponse> {
    let namespace_id = scope.namespace_id();
    ResumingStream::new(scope.clone(), token.to_owned(), move |channel, request, resume_token| {
        let message = v1::WatchRequest { namespace_id: namespace_id.clone(), resume_token, from_oldest };
        let mut client = events_client(channel);
        Box::pin(async move { client.watch(request.map(|()| message)).await })
    })
}

impl ResumableResponse for v1::WatchResponse {
    fn resume_token(&self) -> &str {
        &self.resume_token
    }
}
