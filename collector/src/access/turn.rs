//! Whose turn it is, and for how long.
//!
//! Owns the limits that keep one asker from taking everything: how much runs at once, how much of it one user may have running or
//! waiting, and how long an answer may take. A user is who is let in by a token, wherever from; without tokens, whoever asks from one address.
//! Whoever goes away gives its turn back. Refuses with words that say what to do.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Turns at one sort of work.
#[derive(Clone)]
pub(crate) struct Turns {
    /// "questions"
    what: &'static str,
    at_once: usize,
    places: Arc<Semaphore>,
    of_each: usize,
    users: Users,
}

/// How many turns each user has, or waits for; nobody is in it who has none.
type Users = Arc<Mutex<HashMap<String, usize>>>;

/// A turn; dropping it gives it back.
pub(crate) struct Turn {
    _place: OwnedSemaphorePermit,
    _share: Share,
}

/// What counts against one user's limit.
struct Share {
    users: Users,
    user: String,
}

/// Why there was no turn, or no answer in it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The user's own limit.
    #[error(
        "{of_each} {what} of yours are running or waiting, and no more can be: wait until one is over, or end one (Ctrl-C where it was asked)"
    )]
    TooMany { what: &'static str, of_each: usize },
    /// Everybody's.
    #[error("{at_once} {what} are running, and no more can be: ask again when one is over")]
    Busy { what: &'static str, at_once: usize },
    /// It took too long.
    #[error(
        "no answer within {} seconds: narrow the time (--since, --until), the principal or the object; an export has no such limit, and neither \
         has a copy of the folder (--data)",
        .0.as_secs()
    )]
    TooLong(Duration),
}

impl Turns {
    /// So many at once, and of each user so many, those that wait included.
    pub(crate) fn new(what: &'static str, at_once: usize, of_each: usize) -> Self {
        Self {
            what,
            at_once,
            places: Arc::new(Semaphore::new(at_once)),
            of_each,
            users: Users::default(),
        }
    }

    /// At questions, over whatever protocol they are asked.
    pub(crate) fn at_questions() -> Self {
        Self::new("questions", QUESTIONS, QUESTIONS_OF_EACH)
    }

    /// A turn, after those who came before.
    pub(crate) async fn wait(&self, user: &str) -> Result<Turn, Refused> {
        self.wait_for(user, PATIENCE).await
    }

    async fn wait_for(&self, user: &str, longest: Duration) -> Result<Turn, Refused> {
        let share = self.share(user)?;
        match timeout(longest, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(Turn {
                _place: place,
                _share: share,
            }),
            _ => Err(self.busy()),
        }
    }

    /// A turn now, or none.
    pub(crate) fn now(&self, user: &str) -> Result<Turn, Refused> {
        let share = self.share(user)?;
        let place = Arc::clone(&self.places).try_acquire_owned();
        Ok(Turn {
            _place: place.map_err(|_| self.busy())?,
            _share: share,
        })
    }

    fn busy(&self) -> Refused {
        Refused::Busy {
            what: self.what,
            at_once: self.at_once,
        }
    }

    fn share(&self, user: &str) -> Result<Share, Refused> {
        let mut users = held(&self.users);
        let count = users.get(user).copied().unwrap_or_default();
        if count >= self.of_each {
            return Err(Refused::TooMany {
                what: self.what,
                of_each: self.of_each,
            });
        }
        users.insert(user.to_owned(), count + 1);
        Ok(Share {
            users: Arc::clone(&self.users),
            user: user.to_owned(),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut users = held(&self.users);
        match users.get_mut(&self.user) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                users.remove(&self.user);
            }
        }
    }
}

fn held(users: &Users) -> MutexGuard<'_, HashMap<String, usize>> {
    // Nothing panics while it holds the lock with a change half made.
    users.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer, if it comes in time; what it was made with is let go of otherwise.
pub(crate) async fn within<T>(
    longest: Duration,
    answer: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    match timeout(longest, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Refused::TooLong(longest).into()),
    }
}

/// Questions answered at once; others wait. Each may take a core and a share of the memory pool.
const QUESTIONS: usize = 4;

/// Of one user, those that wait included: two pages that refresh, and somebody at the command line.
const QUESTIONS_OF_EACH: usize = 8;

/// How long a question waits for its turn: as long as one before it may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_user_does_not_take_the_turns_of_others() {
        let turns = Turns::new("questions", 2, 2);
        let mine = (turns.now("a").unwrap(), turns.now("a").unwrap());
        let too_many = turns.now("a").err();
        assert_eq!(
            too_many,
            Some(Refused::TooMany {
                what: "questions",
                of_each: 2
            })
        );
        let busy = Refused::Busy {
            what: "questions",
            at_once: 2,
        };
        assert_eq!(turns.now("b").err(), Some(busy));
        assert!(
            !held(&turns.users).contains_key("b"),
            "a refusal counts for nothing"
        );
        let waiting = turns.wait("b");
        let mut waiting = std::pin::pin!(waiting);
        assert!(timeout(Duration::from_millis(20), &mut waiting).await.is_err());
        drop(mine.0);
        let theirs = waiting.await.unwrap();
        drop((mine.1, theirs));
        assert!(held(&turns.users).is_empty(), "nobody is kept who has none");
    }

    #[tokio::test]
    async fn nobody_waits_for_ever_and_whoever_gives_up_waits_no_longer() {
        let turns = Turns::new("questions", 1, 2);
        let _running = turns.now("a").unwrap();
        let soon = Duration::from_millis(20);
        let refused = turns.wait_for("a", soon).await.err();
        assert!(matches!(refused, Some(Refused::Busy { .. })), "{refused:?}");
        let given_up = timeout(soon, turns.wait("a")).await;
        assert!(given_up.is_err());
        assert_eq!(held(&turns.users).get("a"), Some(&1));
        let never = within(soon, std::future::pending::<anyhow::Result<()>>());
        let error = never.await.expect_err("never");
        assert!(error.to_string().contains("narrow the time"), "{error}");
    }
}
