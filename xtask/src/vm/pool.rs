//! Several machines at a time, of one processor each: a machine of two spends much of the second on waiting for the
//! first.

use std::{
    sync::{
        Mutex,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use anyhow::Result;

use super::{console::News, fetch::Fetched, matrix::Kernel, progress::Progress, stage::Stage, verdict::Row};

/// How often the seconds of the progress move on.
const TICK: Duration = Duration::from_secs(1);

/// What a machine's thread says of the kernel with this number.
enum Word {
    Begins(usize),
    News(usize, News),
    Again(usize, String),
    Ends(usize, Box<Row>),
}

/// Runs all kernels, so many at a time, and gives what became of them in their order.
pub(crate) fn run(
    stage: &Stage<'_>,
    kernels: &[&Kernel],
    fetched: Vec<Result<Fetched>>,
    at_a_time: usize,
    progress: &mut Progress,
) -> Vec<Row> {
    // From the end: what is begun last should be short.
    let mut waiting: Vec<_> = fetched.into_iter().enumerate().collect();
    waiting.sort_by_key(|(number, _)| stage.expected(kernels[*number]));
    let waiting = Mutex::new(waiting);
    let mut rows: Vec<Option<Row>> = kernels.iter().map(|_| None).collect();
    let (say, words) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..at_a_time.min(kernels.len()) {
            let (say, waiting) = (say.clone(), &waiting);
            scope.spawn(move || {
                while let Some((number, fetched)) = next(waiting) {
                    perform(stage, kernels, number, fetched, &say);
                }
            });
        }
        drop(say);
        loop {
            let word = if progress.is_live() {
                words.recv_timeout(TICK)
            } else {
                words.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match word {
                Ok(Word::Begins(number)) => {
                    progress.begin(&kernels[number].name, stage.expected(kernels[number]));
                }
                Ok(Word::News(number, news)) => progress.tell(&kernels[number].name, &news),
                Ok(Word::Again(number, why)) => progress.again(&kernels[number].name, &why),
                Ok(Word::Ends(number, row)) => {
                    progress.end(&row);
                    rows[number] = Some(*row);
                }
                Err(RecvTimeoutError::Timeout) => progress.draw(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    rows.into_iter().flatten().collect()
}

fn next<T>(waiting: &Mutex<Vec<T>>) -> Option<T> {
    // Nobody panics while holding it; if so, the scope hands the panic on.
    waiting.lock().ok()?.pop()
}

fn perform(
    stage: &Stage<'_>,
    kernels: &[&Kernel],
    number: usize,
    fetched: Result<Fetched>,
    say: &Sender<Word>,
) {
    let kernel = kernels[number];
    // The listener outlives all who speak.
    let say = |word| drop(say.send(word));
    // One that cannot be had does not keep the others from being run.
    let row = match fetched {
        Ok(fetched) => {
            say(Word::Begins(number));
            let tell = |news: &News| say(Word::News(number, news.clone()));
            let again = |why: &str| say(Word::Again(number, why.to_owned()));
            stage
                .perform(kernel, &fetched, tell, again)
                .unwrap_or_else(|error| Row::without_start(kernel, true, format!("{error:#}")))
        }
        Err(error) => Row::without_start(kernel, false, format!("{error:#}")),
    };
    say(Word::Ends(number, Box::new(row)));
}
