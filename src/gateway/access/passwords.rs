//! Passwords, as bcrypt hashes: checked one at a time on a thread of their own, behind a bounded queue, so that whoever
//! tries many costs the others little. Results are remembered.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Semaphore;

use crate::gateway::error::Failure;
use crate::gateway::peer::Peer;

/// Passwords that may wait to be checked.
const QUEUE_LEN_MAX: usize = 32;
/// Right passwords that are remembered.
const RIGHT_REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).expect("it is more than 0");
/// Wrong ones; apart from the right ones, so that nobody drives those out.
const WRONG_REMEMBERED: NonZeroUsize = NonZeroUsize::new(256).expect("it is more than 0");
/// The cost that hashes have which nobody chose otherwise.
const DEFAULT_COST: u32 = 10;

/// Users and the hashes of their passwords.
pub(super) struct Users {
    hashes: BTreeMap<String, String>,
    /// What the passwords of unknown users are compared with, so that they take as long as others.
    nobody: String,
}

impl Users {
    pub(super) fn new(hashes: BTreeMap<String, String>) -> Result<Self, String> {
        let mut cost = None;
        for (user, hash) in &hashes {
            let parts: bcrypt::HashParts = hash
                .parse()
                .map_err(|_| format!("basic_auth_users: the hash of {user:?} is no bcrypt hash"))?;
            cost = cost.max(Some(parts.get_cost()));
        }
        Ok(Self { hashes, nobody: unmatched(cost.unwrap_or(DEFAULT_COST)) })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

/// A hash that no password is known for.
fn unmatched(cost: u32) -> String {
    format!("$2b${cost:02}${}", ".".repeat(22 + 31))
}

type Digest = [u8; 32];

/// Checks passwords and remembers what came of it.
pub(super) struct Passwords {
    /// Makes what is remembered useless to others.
    salt: [u8; 32],
    /// Held to look something up, never across an await.
    remembered: Mutex<Remembered>,
    queue: Arc<Semaphore>,
    /// One password at a time.
    turn: Arc<Semaphore>,
}

struct Remembered {
    right: LruCache<Digest, ()>,
    wrong: LruCache<Digest, ()>,
}

impl Passwords {
    pub(super) fn new() -> Self {
        let mut salt = [0; 32];
        SystemRandom::new().fill(&mut salt).expect("the kernel has random numbers");
        Self {
            salt,
            remembered: Mutex::new(Remembered {
                right: LruCache::new(RIGHT_REMEMBERED),
                wrong: LruCache::new(WRONG_REMEMBERED),
            }),
            queue: Arc::new(Semaphore::new(QUEUE_LEN_MAX)),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// Whether a user has this password.
    ///
    /// # Errors
    /// Where too many are waiting already.
    pub(super) async fn check(
        &self,
        users: &Users,
        user: String,
        password: String,
        peer: &Peer,
    ) -> Result<bool, Failure> {
        let hash = users.hashes.get(&user);
        let is_known = hash.is_some();
        let hash = hash.unwrap_or(&users.nobody).clone();
        let digest = self.digest([&user, &hash, &password]);
        if let Some(is_right) = self.recall(&digest) {
            return Ok(is_right);
        }
        let _place = self.queue.clone().try_acquire_owned().map_err(|_| Failure::TooManyPasswords)?;
        let turn = self.turn.clone().acquire_owned().await.map_err(|_| Failure::Internal)?;
        if peer.has_hung_up() {
            return Err(Failure::ClientGone);
        }
        // Somebody before us may have asked the same.
        if let Some(is_right) = self.recall(&digest) {
            return Ok(is_right);
        }
        let compare = move || {
            let is_right = bcrypt::verify(&password, &hash).unwrap_or(false);
            drop(turn);
            is_right
        };
        let is_right = tokio::task::spawn_blocking(compare).await.map_err(|_| Failure::Internal)? && is_known;
        self.remember(digest, is_right);
        Ok(is_right)
    }

    fn digest(&self, parts: [&str; 3]) -> Digest {
        let mut context = Context::new(&SHA256);
        context.update(&self.salt);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    fn recall(&self, digest: &Digest) -> Option<bool> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        match remembered.right.get(digest) {
            Some(()) => Some(true),
            None => remembered.wrong.get(digest).map(|()| false),
        }
    }

    fn remember(&self, digest: Digest, is_right: bool) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if is_right { &mut remembered.right } else { &mut remembered.wrong }.put(digest, ());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        let hash = bcrypt::hash("secret", 4).expect("a low cost");
        Users::new(BTreeMap::from([("alice".to_owned(), hash)])).expect("a good hash")
    }

    #[tokio::test]
    async fn passwords_are_compared_and_remembered() {
        let (users, passwords) = (users(), Passwords::new());
        for (user, password, expected) in
            [("alice", "secret", true), ("alice", "Secret", false), ("bob", "secret", false), ("", "", false)]
        {
            for _ in 0..2 {
                let is_right =
                    passwords.check(&users, user.to_owned(), password.to_owned(), &Peer::default()).await;
                assert_eq!(is_right.ok(), Some(expected), "{user} {password}");
            }
        }
        let remembered = passwords.remembered.lock().expect("not poisoned");
        assert_eq!((remembered.right.len(), remembered.wrong.len()), (1, 3));
    }

    #[test]
    fn unknown_users_cost_what_known_ones_cost() {
        let users = users();
        assert!(users.nobody.starts_with("$2b$04$"), "{}", users.nobody);
        // It is a hash that is really computed.
        assert_eq!(bcrypt::verify("x", &users.nobody).ok(), Some(false));
        assert!(Users::new(BTreeMap::from([("a".to_owned(), "plain".to_owned())])).is_err());
    }
}
