//! Supervision of background tasks: each has a name and a declared reaction to its end, and a panic of one is counted.
//! Uses the metrics and the panic log. Independent of the work of a task.
//!
//! A task that serves others, like a lane worker, holds a guard that closes its service when the task is dropped. This
//! file guarantees the drop, also after a panic.

use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinHandle, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use crate::telemetry::metrics::Task;
use crate::telemetry::{metrics::Metrics, panics};

/// First and longest pause before a task is started again.
const RESTART_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// A task that ran this long is next restarted after the first pause again.
const STEADY: Duration = Duration::from_secs(60);

/// The reaction to the end of a task while the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaction {
    /// It is started again after a pause.
    Restart,
    /// The server drains and ends with an error.
    StopServer,
    /// Its service is closed, and all waiting callers get a response. It is started again on demand.
    Close,
    /// Its only caller gets a response.
    End,
}

impl Task {
    /// The declared reaction to the end of each kind of task.
    const fn reaction(self) -> Reaction {
        match self {
            Task::Sweeper | Task::StoreProbe | Task::WitnessFile | Task::AdminPort | Task::Reload => Reaction::Restart,
            // Its child is killed with it.
            Task::EmbeddedRedis => Reaction::StopServer,
            Task::LaneWorker | Task::FeedReader | Task::NamespaceSearch => Reaction::Close,
            Task::CatchUp | Task::Import | Task::OperatorChange | Task::Call | Task::Stream => Reaction::End,
        }
    }
}

/// All background tasks of one server.
#[derive(Clone)]
pub(crate) struct Tasks {
    inner: Arc<Inner>,
}

struct Inner {
    metrics: Arc<Metrics>,
    /// Ends the tasks that run as long as the server.
    stop: CancellationToken,
    /// Drains the server.
    drain: CancellationToken,
    /// The task whose end has stopped the server.
    fatal: OnceLock<Task>,
    tracker: TaskTracker,
    faults: Faults,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").finish_non_exhaustive()
    }
}

impl Tasks {
    /// An empty set of tasks. A task whose end stops the server cancels `drain`.
    pub(crate) fn new(metrics: Arc<Metrics>, drain: CancellationToken, faults: Faults) -> Self {
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        Self { inner: Arc::new(Inner { metrics, stop, drain, fatal: OnceLock::new(), tracker, faults }) }
    }

    /// The tasks of a test without a server.
    #[cfg(test)]
    pub(crate) fn alone() -> Self {
        Self::new(Arc::new(Metrics::new()), CancellationToken::new(), Faults::default())
    }

    /// Is cancelled when the tasks that run as long as the server must end.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.inner.stop.clone()
    }

    /// The task whose end has stopped the server, if any.
    pub(crate) fn fatal(&self) -> Option<Task> {
        self.inner.fatal.get().copied()
    }

    /// Runs a task as long as the server, and starts it again whenever it ends.
    pub(crate) fn keep<F>(&self, task: Task, mut start: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        debug_assert_eq!(task.reaction(), Reaction::Restart);
        let tasks = self.clone();
        self.inner.tracker.spawn(async move {
            let mut pause = RESTART_PAUSE.0;
            loop {
                let started = Instant::now();
                tasks.guarded(task, start()).await;
                if tasks.inner.stop.is_cancelled() {
                    return;
                }
                if started.elapsed() >= STEADY {
                    pause = RESTART_PAUSE.0;
                }
                tracing::error!(task = task.label(), ?pause, "a task ended and is started again");
                tokio::select! {
                    () = tasks.inner.stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(RESTART_PAUSE.1);
                tasks.inner.metrics.inc_task_restart(task);
            }
        });
    }

    /// Runs a task that the server needs: its end before `stopping` stops the server.
    pub(crate) fn spawn_vital(
        &self,
        task: Task,
        stopping: CancellationToken,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        debug_assert_eq!(task.reaction(), Reaction::StopServer);
        let tasks = self.clone();
        tokio::spawn(async move {
            tasks.guarded(task, future).await;
            if !stopping.is_cancelled() {
                tracing::error!(task = task.label(), "a required task ended, so the server stops");
                // Only the first one is reported.
                let _ = tasks.inner.fatal.set(task);
                tasks.inner.drain.cancel();
            }
        })
    }

    /// Runs a task that ends when its work is done. Its output is `None` if it panicked. The future is then dropped.
    pub(crate) fn spawn<F>(&self, task: Task, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        debug_assert!(matches!(task.reaction(), Reaction::Close | Reaction::End));
        tokio::spawn(self.guarded(task, future))
    }

    /// Wraps the future of a task. A panic is logged with the name of the task, counted, and ends the future.
    pub(crate) fn guarded<F: Future>(&self, task: Task, future: F) -> impl Future<Output = Option<F::Output>> + use<F> {
        let tasks = self.clone();
        let faults = tasks.inner.faults.clone();
        let future = async move {
            let mut future = pin!(future);
            tokio::select! {
                biased;
                fault = faults.fault(task) => match fault {
                    Fault::Panic => panic!("a test ends this task"),
                    Fault::Stall => std::future::pending().await,
                },
                output = &mut future => output,
            }
        };
        let guarded = Guarded { task, future: Some(Box::pin(future)) };
        async move {
            let output = guarded.await;
            if output.is_none() {
                tasks.count_panic(task);
            }
            output
        }
    }

    /// Runs a part of a task that was not spawned here. Returns `None` after a panic, and counts it.
    pub(crate) fn catch<T>(&self, task: Task, work: impl FnOnce() -> T) -> Option<T> {
        let _named = panics::name(task.label());
        let done = catch_unwind(AssertUnwindSafe(|| {
            self.fail_if_due(task);
            work()
        }));
        if done.is_err() {
            self.count_panic(task);
        }
        done.ok()
    }

    /// Counts a panic of a task that was not spawned here.
    pub(crate) fn count_panic(&self, task: Task) {
        self.inner.metrics.inc_task_panic(task);
    }

    /// Panics if a test has ordered it.
    pub(crate) fn fail_if_due(&self, task: Task) {
        if self.inner.faults.is_due(task) {
            panic!("a test ends this task");
        }
    }

    /// Waits until all tasks that run as long as the server have ended.
    pub(crate) async fn stop(&self) {
        self.inner.stop.cancel();
        self.inner.tracker.close();
        self.inner.tracker.wait().await;
    }
}

/// A future that is dropped after a panic.
struct Guarded<F> {
    task: Task,
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Guarded<F> {
    /// `None` after a panic.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let _named = panics::name(self.task.label());
        let Some(future) = &mut self.future else { return Poll::Ready(None) };
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(polled) => polled.map(Some),
            Err(_) => {
                self.future = None;
                Poll::Ready(None)
            }
        }
    }
}

/// Lets a test of this library end or stall tasks of a server. A server that is started by the binary has none.
#[doc(hidden)]
#[derive(Clone, Debug, Default)]
pub struct Faults(Option<Arc<[[Semaphore; 2]; Task::ALL.len()]>>);

/// A fault of a task.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Panic,
    /// It makes no progress, and does not end.
    Stall,
}

impl Faults {
    /// Faults that a test can order.
    pub fn new() -> Self {
        Self(Some(Arc::new(std::array::from_fn(|_| [Semaphore::new(0), Semaphore::new(0)]))))
    }

    /// The next poll of one task with this name panics.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn panic_in(&self, name: &str) {
        self.order(name, Fault::Panic);
    }

    /// One task with this name makes no progress any more.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn stall(&self, name: &str) {
        self.order(name, Fault::Stall);
    }

    fn order(&self, name: &str, fault: Fault) {
        let task = Task::ALL.iter().find(|task| task.label() == name).expect("the name of a task");
        if let Some(faults) = &self.0 {
            faults[*task as usize][fault as usize].add_permits(1);
        }
    }

    /// Waits for a fault of this task.
    async fn fault(&self, task: Task) -> Fault {
        let Some(faults) = &self.0 else { return std::future::pending().await };
        let [panic, stall] = &faults[task as usize];
        let (permit, fault) = tokio::select! {
            permit = panic.acquire() => (permit, Fault::Panic),
            permit = stall.acquire() => (permit, Fault::Stall),
        };
        if let Ok(permit) = permit {
            permit.forget();
        }
        fault
    }

    /// Whether a panic of this task is ordered. Does not wait.
    fn is_due(&self, task: Task) -> bool {
        let permit = self.0.as_ref().and_then(|faults| faults[task as usize][Fault::Panic as usize].try_acquire().ok());
        permit.map(|permit| permit.forget()).is_some()
    }
}
