//! Runs several virtual machines at the same time.

use std::{
    sync::{
        Mutex,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use anyhow::Result;

use super::{
    console::ConsoleEvent, fetch::Fetched, matrix::Kernel, progress::Progress, test_run::TestRun,
    verdict::Row,
};

/// Interval for redrawing the progress line.
const TICK: Duration = Duration::from_secs(1);

/// Message of a machine's thread about the kernel with this index.
enum Message {
    Started(usize),
    Console(usize, ConsoleEvent),
    Retried(usize, String),
    Finished(usize, Box<Row>),
}

/// Runs all kernels, at most `machines` at the same time, and returns their results in the order of `kernels`.
pub(crate) fn run(
    test_run: &TestRun<'_>,
    kernels: &[&Kernel],
    fetched: Vec<Result<Fetched>>,
    machines: usize,
    progress: &mut Progress,
) -> Vec<Row> {
    // Taken from the end: the longest run starts first.
    let mut waiting: Vec<_> = fetched.into_iter().enumerate().collect();
    waiting.sort_by_key(|(index, _)| test_run.expected(kernels[*index]));
    let waiting = Mutex::new(waiting);
    let mut rows: Vec<Option<Row>> = kernels.iter().map(|_| None).collect();
    let (sender, messages) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..machines.min(kernels.len()) {
            let (sender, waiting) = (sender.clone(), &waiting);
            scope.spawn(move || {
                while let Some((index, fetched)) = next(waiting) {
                    run_kernel(test_run, kernels, index, fetched, &sender);
                }
            });
        }
        drop(sender);
        loop {
            let message = if progress.is_live() {
                messages.recv_timeout(TICK)
            } else {
                messages.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match message {
                Ok(Message::Started(index)) => {
                    progress.begin(&kernels[index].name, test_run.expected(kernels[index]));
                }
                Ok(Message::Console(index, event)) => progress.update(&kernels[index].name, &event),
                Ok(Message::Retried(index, why)) => progress.retry(&kernels[index].name, &why),
                Ok(Message::Finished(index, row)) => {
                    progress.end(&row);
                    rows[index] = Some(*row);
                }
                Err(RecvTimeoutError::Timeout) => progress.draw(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    rows.into_iter().flatten().collect()
}

fn next<T>(waiting: &Mutex<Vec<T>>) -> Option<T> {
    // Poisoned only by a panic, which the scope passes on.
    waiting.lock().ok()?.pop()
}

fn run_kernel(
    test_run: &TestRun<'_>,
    kernels: &[&Kernel],
    index: usize,
    fetched: Result<Fetched>,
    sender: &Sender<Message>,
) {
    let kernel = kernels[index];
    // The receiver outlives all senders.
    let send = |message| drop(sender.send(message));
    // The other kernels run even if this one cannot be downloaded.
    let row = match fetched {
        Ok(fetched) => {
            send(Message::Started(index));
            let on_event = |event: &ConsoleEvent| send(Message::Console(index, event.clone()));
            let on_retry = |why: &str| send(Message::Retried(index, why.to_owned()));
            test_run
                .run_kernel(kernel, &fetched, on_event, on_retry)
                .unwrap_or_else(|error| Row::without_start(kernel, true, format!("{error:#}")))
        }
        Err(error) => Row::without_start(kernel, false, format!("{error:#}")),
    };
    send(Message::Finished(index, Box::new(row)));
}
