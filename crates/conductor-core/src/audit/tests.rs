use super::*;
use proptest::prelude::*;
use uuid::Uuid;

fn entry(seq: u64, kind: &str) -> AuditEntry {
    AuditEntry {
        seq,
        at: Timestamp::from_millis(1_763_000_000_000 + i64::try_from(seq).unwrap()),
        kind: kind.to_owned(),
        actor: "server".to_owned(),
        tenant: Some(TenantId::new(Uuid::from_u128(2))),
        notification: Some(NotificationId::new(Uuid::from_u128(u128::from(seq)))),
        ordinal: Some(0),
        channel: None,
        details: Some(format!("{{\"attempt\":{seq}}}")),
        seal: None,
        content: None,
        hash: GENESIS,
    }
}

/// Gives each entry the hash that it has behind those before it.
fn link(entries: &mut [AuditEntry]) {
    let mut previous = GENESIS;
    for entry in entries {
        previous = entry.fields().hash(&previous, &mut Vec::new());
        entry.hash = previous;
    }
}

fn good(count: u64) -> Vec<AuditEntry> {
    let mut entries: Vec<_> = (1..=count).map(|seq| entry(seq, "sent")).collect();
    link(&mut entries);
    entries
}

fn faults(entries: &[AuditEntry]) -> Vec<String> {
    let mut check = ChainCheck::behind(0, GENESIS);
    let look = |(index, entry)| check.next(entry, &entries[index + 1..]).map(|fault| fault.to_string());
    entries.iter().enumerate().filter_map(look).collect()
}

#[test]
fn a_chain_that_nobody_touched_is_whole() {
    assert_eq!(faults(&good(100)), [""; 0]);
    assert_eq!(faults(&[]), [""; 0]);
}

#[test]
fn every_changed_entry_is_named_and_no_other() {
    let mut changed = good(20);
    changed[4].details = Some("{}".to_owned());
    changed[9].at = Timestamp::from_millis(1);
    changed[14].hash[0] ^= 1;
    changed[19].kind = "failed".to_owned();
    let named = [5, 10, 15, 20].map(|seq| format!("entry {seq} was changed"));
    assert_eq!(faults(&changed), named);
}

#[test]
fn a_removed_entry_is_named_whether_the_gap_is_left_or_closed() {
    let mut removed = good(20);
    removed.remove(4);
    assert_eq!(faults(&removed), ["entry 5 was removed"]);
    removed.drain(9..12);
    assert_eq!(faults(&removed), ["entry 5 was removed", "the entries 11 to 13 were removed"]);
    let mut closed = good(20);
    closed.drain(4..6);
    for (entry, seq) in closed.iter_mut().zip(1..) {
        entry.seq = seq;
    }
    assert_eq!(faults(&closed), ["the entries 5 to 6 were removed"]);
    assert_eq!(faults(&good(20)[3..]), ["the entries 1 to 3 were removed"]);
}

#[test]
fn an_inserted_entry_is_named_and_the_moved_ones_are_not() {
    let mut inserted = good(20);
    inserted.splice(7..7, [entry(8, "canceled"), entry(9, "canceled")]);
    for (entry, seq) in inserted.iter_mut().zip(1..) {
        entry.seq = seq;
    }
    assert_eq!(faults(&inserted), ["entry 8 was inserted", "entry 9 was inserted"]);
    let mut check = ChainCheck::behind(0, GENESIS);
    for (index, entry) in inserted.iter().enumerate() {
        check.next(entry, &inserted[index + 1..]);
    }
    assert!(check.is_at(20, &good(20)[19].hash), "the last is the one that was the last");
}

#[test]
fn swapped_entries_are_both_named() {
    let mut swapped = good(20);
    swapped.swap(3, 12);
    for (entry, seq) in swapped.iter_mut().zip(1..) {
        entry.seq = seq;
    }
    let unsure = |seq| format!("entry {seq} does not follow the one before it, so it may be wrong too");
    let named = ["entry 4 was changed".to_owned(), unsure(5), "entry 13 was changed".to_owned(), unsure(14)];
    assert_eq!(faults(&swapped), named);
}

#[test]
fn one_that_was_replaced_with_its_hash_gives_itself_away_by_the_next() {
    let mut replaced = good(20);
    replaced[9].details = None;
    let previous = replaced[8].hash;
    replaced[9].hash = replaced[9].fields().hash(&previous, &mut Vec::new());
    assert_eq!(faults(&replaced), ["entry 11 was changed"]);
}

#[test]
fn details_are_a_json_object_whatever_stands_in_them() {
    assert_eq!(Details::new().as_json(), None);
    assert_eq!(Details::new().flag("no", false).maybe("none", None).as_json(), None);
    let details = Details::new().text("a", "\"x\"\n}").number("b", 7).flag("c", true).value("d", &Value::Null);
    let read: Value = serde_json::from_str(details.as_json().unwrap()).unwrap();
    assert_eq!(read, serde_json::json!({ "a": "\"x\"\n}", "b": 7, "c": true, "d": null }));
}

#[test]
fn a_seal_depends_on_the_salt_and_on_every_part() {
    let posted =
        Posted { target: None, message: "m", title: None, data: None, metadata: None, key: None, fallback: None };
    let salt = [7; 16];
    let mut seals = vec![posted.seal(&salt), posted.seal(&[8; 16])];
    for part in ["m", ""] {
        let part = Some(part);
        seals.extend([
            Posted { target: part, ..posted }.seal(&salt),
            Posted { title: part, ..posted }.seal(&salt),
            Posted { data: part, ..posted }.seal(&salt),
            Posted { metadata: part, ..posted }.seal(&salt),
            Posted { key: part, ..posted }.seal(&salt),
            Posted { fallback: part, ..posted }.seal(&salt),
        ]);
    }
    seals.push(Posted { message: "", target: Some("m"), ..posted }.seal(&salt));
    let count = seals.len();
    seals.sort_unstable();
    seals.dedup();
    assert_eq!(seals.len(), count);
}

/// Reads back what [`Fields::encode`] wrote: what can be read back in one way only is no other entry's encoding.
struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }
    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().unwrap()
    }
    fn number(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }
    fn text(&mut self) -> String {
        let length = usize::try_from(self.number()).unwrap();
        String::from_utf8(self.take(length).to_vec()).unwrap()
    }
    fn maybe<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> Option<T> {
        match self.take(1) {
            [0] => None,
            [1] => Some(read(self)),
            other => panic!("{other:?}"),
        }
    }
    fn entry(mut self) -> AuditEntry {
        assert_eq!(self.take(1), [ENCODING]);
        let entry = AuditEntry {
            seq: self.number(),
            at: Timestamp::from_millis(i64::from_be_bytes(self.array())),
            kind: self.text(),
            actor: self.text(),
            tenant: self.maybe(|from| TenantId::from_bytes(from.array())),
            notification: self.maybe(|from| NotificationId::from_bytes(from.array())),
            ordinal: self.maybe(|from| from.take(1)[0]),
            channel: self.maybe(|from| ChannelId::from_bytes(from.array())),
            details: self.maybe(Self::text),
            seal: self.maybe(Self::array),
            content: None,
            hash: GENESIS,
        };
        assert!(self.0.is_empty());
        entry
    }
}

prop_compose! {
    fn any_entry()(
        seq in any::<u64>(), at in 0..Timestamp::MAX.millis(), kind in ".{0,12}", actor in ".{0,12}",
        ids in any::<[Option<[u8; 16]>; 3]>(), ordinal in any::<Option<u8>>(),
        details in proptest::option::of(".{0,40}"), seal in any::<Option<[u8; 32]>>(),
    ) -> AuditEntry {
        AuditEntry {
            seq, at: Timestamp::from_millis(at), kind, actor, tenant: ids[0].map(TenantId::from_bytes),
            notification: ids[1].map(NotificationId::from_bytes), ordinal, channel: ids[2].map(ChannelId::from_bytes),
            details, seal, content: None, hash: GENESIS,
        }
    }
}

proptest! {
    #[test]
    fn an_encoding_belongs_to_one_entry_only(entry in any_entry()) {
        let mut encoded = Vec::new();
        entry.fields().encode(&mut encoded);
        prop_assert_eq!(Decoder(&encoded).entry(), entry);
    }

    #[test]
    fn any_one_change_in_any_chain_is_found_where_it_was_made(
        mut entries in proptest::collection::vec(any_entry(), 2..12), at in any::<prop::sample::Index>(), other in any_entry(),
    ) {
        for (entry, seq) in entries.iter_mut().zip(1..) {
            entry.seq = seq;
        }
        link(&mut entries);
        let at = at.index(entries.len());
        let (seq, hash) = (entries[at].seq, entries[at].hash);
        let changed = AuditEntry { seq, hash, ..other };
        prop_assume!(changed != entries[at]);
        entries[at] = changed;
        prop_assert_eq!(faults(&entries), [format!("entry {seq} was changed")]);
    }
}
