//! What a group wants, which shard goes next, and what to do about the ones that do not come.

use std::time::Instant;

use super::{GroupIndex, LostGroup, NodeIndex, Schedule, ShardIndex, ShardState, Turn};

impl Schedule {
    /// Whether nothing more of a group is needed.
    pub(super) fn is_whole(&self, group: GroupIndex) -> bool {
        let data = self.grouping.data_of(group);
        data.clone().all(|shard| self.state(shard) != ShardState::Absent) || self.present(group) >= data.len()
    }

    fn state(&self, shard: ShardIndex) -> ShardState {
        self.states[shard as usize]
    }

    /// Shards of a group from which others can be restored.
    fn present(&self, group: GroupIndex) -> usize {
        self.grouping.shards_of(group).filter(|shard| self.state(*shard) == ShardState::Present).count()
    }

    /// Whether a node has not said that it lacks the shard.
    fn may_hold(&self, node: NodeIndex, shard: ShardIndex) -> bool {
        !self.missing.get(&shard).is_some_and(|nodes| nodes.contains(&node))
    }

    fn is_obtainable(&self, shard: ShardIndex) -> bool {
        let may_give = |node: usize| !self.nodes[node].is_dropped && self.may_hold(node, shard);
        (0..self.nodes.len()).any(may_give)
    }

    /// Whether the shard is expected on another node.
    pub(super) fn is_stray(&self, node: NodeIndex, shard: ShardIndex) -> bool {
        self.home(shard).is_some_and(|home| home != node)
    }

    fn home(&self, shard: ShardIndex) -> Option<NodeIndex> {
        let homes = self.homes.as_ref()?;
        Some(homes.node_of(self.grouping.group_of(shard), self.grouping.ordinal(shard)))
    }

    /// Decides anew which shards of an open group are wanted.
    pub(super) fn replan(&mut self, group: GroupIndex) {
        if !self.open.contains_key(&group) {
            return;
        }
        let plan = self.plan(group);
        let queued: Vec<_> = self.waiting.range((group, 0)..=(group, u32::MAX)).copied().collect();
        for entry in queued {
            self.waiting.remove(&entry);
        }
        match plan {
            Some(wanted) => {
                let idle = wanted.into_iter().filter(|shard| !self.flights.contains_key(shard));
                self.waiting.extend(idle.map(|shard| (group, shard)));
            }
            None => {
                let is_news =
                    self.open.get_mut(&group).is_some_and(|open| !std::mem::replace(&mut open.is_lost, true));
                if is_news {
                    self.lost_count += 1;
                    self.newly_lost.push(group);
                }
                self.end_flights(group);
            }
        }
        self.recharge(group);
    }

    pub(super) fn replan_all(&mut self) {
        let open: Vec<_> = self.open.keys().copied().collect();
        for group in open {
            self.replan(group);
        }
    }

    /// The shards that a group wants, those under way included; `None` if it cannot be made whole.
    fn plan(&self, group: GroupIndex) -> Option<Vec<ShardIndex>> {
        if self.is_done[group as usize] {
            return Some(Vec::new());
        }
        let data = self.grouping.data_of(group);
        let absent = data.clone().filter(|shard| self.state(*shard) == ShardState::Absent);
        let (mut wanted, lost): (Vec<_>, Vec<_>) = absent.partition(|shard| self.is_obtainable(*shard));
        if lost.is_empty() {
            return Some(wanted);
        }
        // Restoring takes the stored bytes of as many shards as the group has data: parity instead of what is lost, and
        // if that is not enough, data whose stored bytes are no more.
        let needed = data.len().saturating_sub(self.present(group) + wanted.len());
        let parity = self.grouping.parity_of(group).filter(|shard| self.state(*shard) == ShardState::Absent);
        let plain = data.filter(|shard| self.state(*shard) == ShardState::Plain);
        let mut spares: Vec<_> = parity.chain(plain).filter(|shard| self.is_obtainable(*shard)).collect();
        spares.sort_by_key(|shard| !self.flights.contains_key(shard));
        if spares.len() < needed {
            return None;
        }
        wanted.extend(&spares[..needed]);
        Some(wanted)
    }

    pub(super) fn describe_lost(&self, group: GroupIndex) -> LostGroup {
        let is_missing =
            |shard: &ShardIndex| self.state(*shard) != ShardState::Present && !self.is_obtainable(*shard);
        let shards = self.grouping.shards_of(group);
        let missing = shards.clone().filter(is_missing).count() as u32;
        let needed = self.grouping.data_of(group).len() as u32;
        LostGroup { group, shards: shards.count() as u32, needed, missing }
    }

    /// Ends requests of a group that is lost; what they would bring is of no use.
    fn end_flights(&mut self, group: GroupIndex) {
        for shard in self.grouping.shards_of(group) {
            for flight in self.flights.remove(&shard).unwrap_or_default() {
                self.nodes[flight.node].in_flight -= 1;
                self.called_off.push((flight.node, shard));
            }
        }
    }

    /// Counts anew what a group needs of the memory.
    pub(super) fn recharge(&mut self, group: GroupIndex) {
        let in_flight = self.in_flight(group);
        let waiting = self.waiting_count(group);
        let Some(open) = self.open.get_mut(&group) else { return };
        let is_idle = in_flight + open.holding == 0;
        let charge = if is_idle || open.is_lost { 0 } else { in_flight + waiting + open.holding };
        self.charged = self.charged - open.charged + charge;
        open.charged = charge;
    }

    fn in_flight(&self, group: GroupIndex) -> usize {
        self.grouping.shards_of(group).filter(|shard| self.flights.contains_key(shard)).count()
    }

    fn waiting_count(&self, group: GroupIndex) -> usize {
        self.waiting.range((group, 0)..=(group, u32::MAX)).count()
    }

    /// Whether a shard of the group may be asked for: it has begun, or what it wants fits.
    fn has_room(&self, group: GroupIndex, wants: usize) -> bool {
        if self.in_order_from.is_some_and(|from| group as usize >= from as usize + self.groups_ahead) {
            return false;
        }
        let has_begun = self.open.get(&group).is_some_and(|open| open.charged > 0);
        has_begun || self.charged == 0 || self.charged + wants <= self.slots_max
    }

    /// The first shard that waits, that the node may hold, and that there is room for; those that are expected on this
    /// node go before others.
    pub(super) fn next_waiting(&mut self, node: NodeIndex, now: Instant) -> Option<ShardIndex> {
        loop {
            if let Some(shard) = self.find_waiting(node, now) {
                return Some(shard);
            }
            if !self.open_next() {
                return None;
            }
        }
    }

    fn find_waiting(&self, node: NodeIndex, now: Instant) -> Option<ShardIndex> {
        let takes_strays = self.nodes[node].may_hold_strays();
        let mut stray = None;
        let mut roomy = None;
        for (group, shard) in self.waiting.iter().copied() {
            if !self.may_hold(node, shard) {
                continue;
            }
            if roomy.is_none_or(|(known, _)| known != group) {
                roomy = Some((group, self.has_room(group, self.waiting_count(group))));
            }
            if !matches!(roomy, Some((_, true))) {
                continue;
            }
            match self.home(shard).filter(|home| *home != node) {
                None => return Some(shard),
                Some(home) => {
                    let is_home_able = !self.nodes[home].is_dropped
                        && !self.nodes[home].rests(now)
                        && self.may_hold(home, shard);
                    if takes_strays || !is_home_able {
                        stray = stray.or(Some(shard));
                    }
                }
            }
        }
        stray
    }

    /// Opens the next group, if there is one and room for it.
    fn open_next(&mut self) -> bool {
        while self.is_done.get(self.cursor as usize) == Some(&true) {
            self.cursor += 1;
        }
        let next = self.cursor;
        if next as usize >= self.is_done.len() {
            return false;
        }
        let wants = self.plan(next).map_or(0, |wanted| wanted.len());
        if !self.has_room(next, wants) {
            return false;
        }
        self.cursor += 1;
        self.open.entry(next).or_default();
        self.replan(next);
        true
    }

    /// For a node that has nothing else to do: what is overdue elsewhere, if this node would likely be faster; else when
    /// something may be.
    pub(super) fn hedge(&mut self, node: NodeIndex, now: Instant) -> Turn {
        let patience = self.nodes[node].patience();
        let mut late: Vec<_> = self
            .flights
            .iter()
            .filter_map(|(shard, flights)| {
                // Each copy under way doubles the patience, so that nodes which deliver nothing cannot keep the others
                // from helping for ever.
                let copies = flights.len().clamp(1, 16) as u32;
                Some((flights.first()?.started + patience * (1 << (copies - 1)), *shard))
            })
            .chain(self.returned.iter().map(|(shard, since)| (*since + patience, *shard)))
            .collect();
        late.sort_unstable();
        let mut overdue = std::collections::HashMap::new();
        for (due, shard) in late {
            let group = self.grouping.group_of(shard);
            if self.is_done[group as usize] || self.is_lost(group) {
                continue;
            }
            let candidate = self.replacement(node, shard);
            if due > now {
                match candidate {
                    Some(_) => return Turn::WaitUntil(due),
                    None => continue,
                }
            }
            let count: &mut usize = overdue.entry(group).or_default();
            *count += 1;
            match candidate {
                Some(other) if other != shard && self.extra_flights(group) >= *count => {}
                Some(other) if self.fits_beside(group) => {
                    self.take_off(other, node, now);
                    return Turn::Fetch(other);
                }
                _ => {}
            }
        }
        Turn::Idle
    }

    /// What this node could fetch for a shard that does not come: a copy, or another shard of the group.
    fn replacement(&self, node: NodeIndex, shard: ShardIndex) -> Option<ShardIndex> {
        let is_ours = |shard: &ShardIndex| {
            self.flights.get(shard).is_some_and(|flights| flights.iter().any(|flight| flight.node == node))
        };
        let is_likely =
            |shard: &ShardIndex| self.nodes[node].may_hold_strays() || !self.is_stray(node, *shard);
        let spares = self.grouping.shards_of(self.grouping.group_of(shard)).filter(|spare| {
            self.state(*spare) == ShardState::Absent
                && !self.flights.contains_key(spare)
                && *spare != shard
                && self.may_hold(node, *spare)
        });
        let copy = Some(shard).filter(|shard| self.may_hold(node, *shard) && !is_ours(shard));
        // A copy needs no decoding. But where each shard has one home, another shard is the better guess.
        copy.filter(is_likely).or_else(|| spares.clone().find(is_likely)).or(copy).or_else(|| spares.min())
    }

    /// Requests of a group beyond what makes it whole.
    fn extra_flights(&self, group: GroupIndex) -> usize {
        let data = self.grouping.data_of(group);
        let absent = data.clone().filter(|shard| self.state(*shard) == ShardState::Absent).count();
        let needed = absent.min(data.len().saturating_sub(self.present(group)));
        (self.in_flight(group) + self.waiting_count(group)).saturating_sub(needed)
    }

    /// Whether one more shard of a group than it needs fits the memory; the oldest group may always have one, or it
    /// would block all.
    fn fits_beside(&self, group: GroupIndex) -> bool {
        let is_oldest =
            self.open.iter().find(|(_, open)| !open.is_lost).is_some_and(|(oldest, _)| *oldest == group);
        is_oldest || self.charged < self.slots_max + self.slots_max / 8
    }
}
