//! Which groups a request is about.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::gateway::error::Failure;
use crate::grouping::{GroupingKey, Selector};
use crate::store::{Group, GroupState, Snapshot};

/// Groups in one answer, where nothing else is asked for.
const LIMIT: usize = 100;
/// Groups in one answer.
const LIMIT_MAX: usize = 1000;
/// Regular expressions in one request: each takes memory, and time for each group.
const REGEXES_MAX: usize = 16;
/// Matchers in one request: each takes time for each group.
const MATCHERS_MAX: usize = 64;
/// How long groups are looked for: a regular expression can take a second for a single long label.
const SEARCH_MAX: Duration = Duration::from_secs(5);

/// Which groups are asked for, and in which order.
#[derive(Debug)]
pub(super) struct Wanted {
    /// One of them has to match; all groups where there is none.
    pub(super) selectors: Vec<Selector>,
    states: Vec<GroupState>,
    pub(super) order: Order,
    pub(super) limit: usize,
    after: Option<Place>,
    pub(super) is_dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// By key.
    Key,
    /// Those first that were pushed longest ago.
    Age,
    /// The worst first; those of one state by age.
    State,
}

/// What a group is ordered by; those of one rank by key.
type Rank = (u8, i64);

/// Where a group stands in an order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    rank: Rank,
    key: Arc<GroupingKey>,
}

/// Whether regular expressions may stand in a query: reading and using them may take long.
pub(super) fn is_search(query: Option<&str>) -> bool {
    let mut pairs = query.into_iter().flat_map(|query| form_urlencoded::parse(query.as_bytes()));
    pairs.any(|(name, value)| matches!(&*name, "match[]" | "match") && value.contains('~'))
}

impl Order {
    fn rank(self, group: &Group) -> Rank {
        match self {
            Self::Key => (0, 0),
            Self::Age => (0, group.succeeded_at.0),
            Self::State => (group.state() as u8, group.succeeded_at.0),
        }
    }
}

impl Place {
    pub(super) fn of(group: &Group, order: Order) -> Self {
        Self { rank: order.rank(group), key: group.key.clone() }
    }

    fn parse(text: &str, order: Order) -> Option<Self> {
        let (rank, id) = match (order, text.rsplit_once('.')) {
            (Order::Key, None) => ((0, 0), text),
            (Order::Age | Order::State, Some((rank, id))) => {
                let (state, at) = rank.split_once('.')?;
                ((state.parse().ok()?, at.parse().ok()?), id)
            }
            _ => return None,
        };
        Some(Self { rank, key: Arc::new(GroupingKey::from_id(id)?) })
    }

    pub(super) fn to_text(&self, order: Order) -> String {
        let (id, (state, at)) = (self.key.to_id(), self.rank);
        if order == Order::Key { id } else { format!("{state}.{at}.{id}") }
    }
}

impl Wanted {
    /// Reads a query string.
    pub(super) fn of(query: Option<&str>) -> Result<Self, Failure> {
        let mut wanted = Self {
            selectors: Vec::new(),
            states: Vec::new(),
            order: Order::Key,
            limit: LIMIT,
            after: None,
            is_dry_run: false,
        };
        let (mut seen, mut after) = (Vec::new(), None);
        for (name, value) in query.into_iter().flat_map(|query| form_urlencoded::parse(query.as_bytes())) {
            let bad = |problem: String| Failure::BadParameter {
                name: name.clone().into_owned(),
                value: value.clone().into_owned(),
                problem,
            };
            let one_of = |what: &str| bad(format!("write {what}"));
            if ["sort", "limit", "after", "dry_run"].contains(&&*name) && seen.contains(&name) {
                return Err(bad("it is given twice".to_owned()));
            }
            match &*name {
                "match[]" | "match" => {
                    wanted.selectors.push(Selector::parse(&value).map_err(|error| bad(error.to_string()))?);
                    let all =
                        |count: fn(&Selector) -> usize| wanted.selectors.iter().map(count).sum::<usize>();
                    if all(Selector::regexes) > REGEXES_MAX {
                        return Err(bad(format!("there are more than {REGEXES_MAX} regular expressions")));
                    }
                    if all(Selector::matchers) > MATCHERS_MAX {
                        return Err(bad(format!("there are more than {MATCHERS_MAX} matchers in all")));
                    }
                }
                "state" => {
                    let state = GroupState::ALL.into_iter().find(|state| state.name() == value);
                    let names = GroupState::ALL.map(GroupState::name).join(", ");
                    wanted.states.push(state.ok_or_else(|| one_of(&names))?);
                }
                "sort" => {
                    wanted.order = match &*value {
                        "key" => Order::Key,
                        "age" => Order::Age,
                        "state" => Order::State,
                        _ => return Err(one_of("key, age or state")),
                    }
                }
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                    wanted.limit = limit.ok_or_else(|| one_of("a number from 1 to 1000"))?;
                }
                "after" => after = Some(value.clone().into_owned()),
                "dry_run" => {
                    wanted.is_dry_run = match &*value.to_ascii_lowercase() {
                        "1" | "true" | "yes" | "on" => true,
                        "0" | "false" | "no" | "off" => false,
                        _ => return Err(one_of("1 or 0")),
                    }
                }
                _ => {}
            }
            seen.push(name);
        }
        // How it is read depends on the order, which may stand behind it.
        let place = after.map(|value| {
            let problem = "write what an answer before, of the same order, had as next".to_owned();
            let place = Place::parse(&value, wanted.order);
            place.ok_or(Failure::BadParameter { name: "after".to_owned(), value, problem })
        });
        wanted.after = place.transpose()?;
        Ok(wanted)
    }

    /// # Errors
    /// Where more groups may be selected than somebody wants to delete.
    pub(super) fn judge_for_deletion(&self) -> Result<(), Failure> {
        let bad = |problem: &str| {
            let problem = problem.to_owned();
            Err(Failure::BadParameter { name: "match[]".to_owned(), value: String::new(), problem })
        };
        if self.selectors.is_empty() {
            return bad("write at least one selector of groups such as {job=\"backup\"}");
        }
        if !self.selectors.iter().all(Selector::needs_a_value) {
            return bad(
                "a selector would select groups for what they lack: add a label that they have, if only job=~\".+\"",
            );
        }
        Ok(())
    }

    pub(super) fn has_state_of(&self, group: &Group) -> bool {
        self.states.is_empty() || self.states.contains(&group.state())
    }

    fn selects(&self, group: &Group) -> bool {
        let mut selectors = self.selectors.iter();
        self.has_state_of(group)
            && (self.selectors.is_empty() || selectors.any(|selector| selector.is_match(&group.key)))
    }

    /// Those of groups that are wanted.
    ///
    /// # Errors
    /// Where finding them takes too long.
    pub(super) fn selected<'s>(
        &self,
        groups: impl Iterator<Item = &'s Group>,
    ) -> impl Iterator<Item = Result<&'s Group, Failure>> {
        let search = Search::begin();
        let selected = move |group| search.goes_on().map(|()| self.selects(group).then_some(group));
        groups.map(selected).filter_map(Result::transpose)
    }

    /// The groups in order, one more than is wanted if there are so many.
    ///
    /// # Errors
    /// Where finding them takes too long.
    pub(super) fn page<'s>(&self, snapshot: &'s Snapshot) -> Result<Vec<&'s Group>, Failure> {
        if self.order != Order::Key {
            return self.ranked(snapshot);
        }
        let groups: Box<dyn Iterator<Item = _>> = match &self.after {
            None => Box::new(snapshot.groups()),
            Some(after) => Box::new(snapshot.after(&after.key)),
        };
        self.selected(groups.map(|group| &**group)).take(self.limit + 1).collect()
    }

    /// The same where the order is another one than theirs: each is looked at, and the first ones are kept.
    fn ranked<'s>(&self, snapshot: &'s Snapshot) -> Result<Vec<&'s Group>, Failure> {
        let mut first: BTreeMap<(Rank, &GroupingKey), &Group> = BTreeMap::new();
        let search = Search::begin();
        let after = self.after.as_ref().map(|after| (after.rank, &*after.key));
        // Where there are enough, only those before the last of them count.
        let mut last = None;
        for group in snapshot.in_any_order() {
            let place = (self.order.rank(group), &*group.key);
            if after.is_some_and(|after| place <= after) || last.is_some_and(|last| place >= last) {
                continue;
            }
            search.goes_on()?;
            if self.selects(group) {
                first.insert(place, group);
                if first.len() > self.limit + 1 {
                    first.pop_last();
                }
                if first.len() > self.limit {
                    last = first.last_key_value().map(|(last, _)| *last);
                }
            }
        }
        Ok(first.into_values().collect())
    }
}

/// A look at groups, one after the other.
struct Search {
    end: Instant,
}

impl Search {
    fn begin() -> Self {
        Self { end: Instant::now() + SEARCH_MAX }
    }

    fn goes_on(&self) -> Result<(), Failure> {
        if Instant::now() > self.end { Err(Failure::SearchTooSlow(SEARCH_MAX)) } else { Ok(()) }
    }
}
