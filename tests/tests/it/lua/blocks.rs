//! The script with all conditional blocks switched on. A condition around a block only saves time, so this script must
//! give the same answers and leave the same data as the script of the service. A block that is missing where it is
//! needed, or that does more than it should, makes a difference.

use std::collections::BTreeMap;

use deadpool_redis::redis::{Arg, Cmd, RedisError, Value, cmd};
use inventory_sentinel_script::{
    Batch, DeletionStep, NamespaceConfig, OperationResult, Reply, Stepped,
    codes::{AnswerCode, OpKind},
    decode_step, deletion_command,
    domain::{
        BuyerId, Condition, Delta, FenceId, HistoryPoint, Id, Knowledge, Line, NamespaceName, OnHand, Operation,
        Outcome, Quantity, Reading, ReservationId, RulesChange, Sku, StoreTime, Term, Ttl,
    },
    keys::PartitionKeys,
    limits::FIRST_WITH_PAUSE,
    open_command,
    script::{script_source, script_source_with_all_blocks},
};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};
use sentinel_tests::Redis;
use tokio::time::{Duration, Instant};

const EPOCH: u64 = 7;
const TTL: Duration = Duration::from_secs(60);
/// The key with the time for both scripts, in the form of a reply to TIME.
const TIME: &str = "test:time";
const SKUS: [&str; 4] = ["alpha", "beta", "limited", "new"];
const STEPS: usize = 700;
/// Attempts to close a partition that still has holds or is fenced.
const CLOSING_ATTEMPTS: usize = 12;

/// Random numbers, the same in each run.
struct Dice(TestRunner);

impl Dice {
    fn below(&mut self, number: usize) -> usize {
        (0..number).new_tree(&mut self.0).expect("a number").current()
    }

    fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}

/// One partition for each script, in one Redis.
struct Twins {
    redis: Redis,
    sources: [String; 2],
    keys: [PartitionKeys; 2],
    time: u64,
}

impl Twins {
    async fn open(format: u8) -> Self {
        // Both scripts read the same time, however long the first one takes.
        let time = |source: String| {
            assert!(source.contains("call('TIME')"));
            source.replace("call('TIME')", &format!("call('LRANGE', '{TIME}', 0, -1)"))
        };
        let keys =
            ["one", "two"].map(|name| PartitionKeys::new(&NamespaceName::parse(name.into()).expect("a name"), 0));
        let redis = Redis::start_in_memory().await;
        let sources = [time(script_source()), time(script_source_with_all_blocks())];
        assert_ne!(sources[0], sources[1]);
        let twins = Self { redis, sources, keys, time: 1_700_000_000_000 };
        twins.set_time().await;
        let config = NamespaceConfig {
            revision: 1,
            retention: Duration::from_secs(20),
            default_ttl: TTL,
            max_ttl: TTL,
            max_life: 2 * TTL,
            quota_records: 100_000,
            quota_skus: 100,
            events_kept: 1_000,
            partitions: 1,
            format,
            is_paused: false,
            has_sealed_ids: false,
            secret: [1; 32],
        };
        let knowledge = Knowledge { gates: true, claims: Vec::new(), reading: None };
        twins.call(|keys| open_command("", keys, &knowledge, &config, EPOCH, None)).await.expect("opened");
        twins
    }

    async fn set_time(&self) {
        self.redis.query::<()>(&Cmd::del(TIME)).await;
        let time = [(self.time / 1_000).to_string(), (self.time % 1_000 * 1_000).to_string()];
        self.redis.query::<()>(cmd("RPUSH").arg(TIME).arg(&time)).await;
    }

    /// Calls both scripts; compares the replies and the stored data.
    async fn call(&self, command: impl Fn(&PartitionKeys) -> Cmd) -> Result<Value, String> {
        let mut connection = self.redis.connection().await;
        let mut replies = Vec::new();
        for (source, keys) in self.sources.iter().zip(&self.keys) {
            let mut call = cmd("EVAL");
            call.arg(source);
            for argument in command(keys).args_iter().skip(2) {
                let Arg::Simple(bytes) = argument else { panic!("an argument without bytes") };
                call.arg(bytes);
            }
            // An error without its place in the script.
            let place = |error: RedisError| error.to_string().split(" script: ").next().unwrap_or_default().to_owned();
            replies.push(call.query_async::<Value>(&mut connection).await.map_err(place));
        }
        assert_eq!(replies[0], replies[1]);
        let stored = |name| async move {
            let digest = self.redis.digest(name).await;
            digest.into_iter().map(|(key, digest)| (key.replace(name, ""), digest)).collect::<Vec<_>>()
        };
        assert_eq!(stored("{one/").await, stored("{two/").await);
        replies.remove(0)
    }
}

/// Random operations, many of them on reservations of earlier ones.
struct Operations {
    dice: Dice,
    made: Vec<Id>,
    memos: Vec<Id>,
    next: u64,
    may_pause: bool,
}

impl Operations {
    fn new_id(&mut self) -> Id {
        self.next += 1;
        [&[9; 8][..], &self.next.to_be_bytes()].concat().try_into().expect("16 bytes")
    }

    /// Usually a new id, else one that was used.
    fn memo(&mut self) -> Id {
        if !self.memos.is_empty() && self.dice.one_in(6) {
            return self.dice.of(&self.memos);
        }
        let memo = self.new_id();
        self.memos.push(memo);
        memo
    }

    fn reservation(&mut self) -> ReservationId {
        let recent = self.made.len().saturating_sub(24);
        let id = if self.made.is_empty() { [8; 16] } else { self.dice.of(&self.made[recent..]) };
        ReservationId { id, partition: 0 }
    }

    fn sku(&mut self) -> Sku {
        Sku::parse(self.dice.of(&SKUS).into(), "sku").expect("a SKU")
    }

    fn lines(&mut self) -> Vec<Line> {
        let (first, number) = (self.dice.below(SKUS.len()), 1 + self.dice.below(2));
        let line = |i: usize, units: i32| Line {
            sku: Sku::parse(SKUS[(first + i) % SKUS.len()].into(), "sku").expect("a SKU"),
            quantity: Quantity::parse(units, "quantity").expect("units"),
        };
        (0..number).map(|i| line(i, 1 + self.dice.below(3) as i32)).collect()
    }

    fn ttl(&mut self) -> Ttl {
        Ttl::parse(0, self.dice.of(&[1, 50, 900]) * 1_000_000, TTL).expect("a ttl")
    }

    fn on_hand(&mut self) -> OnHand {
        OnHand::parse(self.dice.of(&[0, 5, 40, 100])).expect("units")
    }

    fn reserve(&mut self, replaces: Option<Id>) -> Operation {
        let id = if !self.made.is_empty() && self.dice.one_in(8) { self.reservation().id } else { self.new_id() };
        self.made.push(id);
        let buyer = self.dice.of(&["", "ada", "ada", "bob"]);
        Operation::Reserve {
            id: ReservationId { id, partition: 0 },
            lines: self.lines(),
            ttl: if self.dice.one_in(3) { None } else { Some(self.ttl()) },
            buyer: BuyerId::parse(buyer.into()).expect("a buyer"),
            replaces,
            is_first_attempt: self.dice.one_in(3),
        }
    }

    fn change(&mut self) -> RulesChange {
        let mut change = RulesChange::default();
        match self.dice.below(if self.may_pause { 12 } else { 9 }) {
            0 => change.is_protected = Some(!self.dice.one_in(4)),
            1..=4 => change.buyer_limit = Some(self.dice.of(&[0, 6])),
            5 => change.max_quantity = Some(self.dice.of(&[0, 2])),
            6 => change.max_ttl = Some(self.dice.of(&[0, 500])),
            7 => change.opens_at = Some(StoreTime(self.dice.of(&[0, 1_700_000_060_000]))),
            8 => change.closes_at = Some(StoreTime(self.dice.of(&[0, 1_800_000_000_000]))),
            _ => change.is_paused = Some(self.dice.one_in(2)),
        }
        change
    }

    fn one(&mut self) -> Operation {
        let id = self.reservation();
        match self.dice.below(24) {
            0..=7 => self.reserve(None),
            8 | 9 => self.reserve(Some(id.id)),
            10 | 11 => Operation::Commit { id, purchase: None },
            12 => Operation::Commit { id, purchase: Some(id.id.map(|byte| byte ^ 0xff)) },
            13 => Operation::Rollback(id),
            14 => Operation::CommitLines { memo: self.memo(), id, lines: self.lines(), keep_rest: self.dice.one_in(2) },
            15 => Operation::RollbackLines { memo: self.memo(), id, lines: self.lines() },
            16 => Operation::Extend { memo: self.memo(), id, ttl: self.ttl() },
            17 => Operation::GetReservation(id),
            18 => {
                let condition = self.dice.of(&[Condition::Always, Condition::IfAbsent, Condition::IfVersion(9)]);
                Operation::SetStock { memo: self.memo(), sku: self.sku(), on_hand: self.on_hand(), condition }
            }
            19 => {
                let delta = Delta::parse(self.dice.of(&[20, -1, -200])).expect("units");
                Operation::AdjustStock { memo: self.memo(), sku: self.sku(), delta }
            }
            20 => {
                let if_revision = self.dice.of(&[None, None, Some(1)]);
                Operation::ConfigureSku { memo: self.memo(), sku: self.sku(), change: self.change(), if_revision }
            }
            21 if self.dice.one_in(3) => Operation::DeleteSku { memo: self.memo(), sku: self.sku() },
            21 | 22 => Operation::GetStock { sku: self.sku() },
            _ => Operation::IsProtected { sku: self.sku() },
        }
    }

    fn some(&mut self) -> Vec<Operation> {
        let number = self.dice.of(&[0, 1, 1, 1, 2, 4, 8]);
        match self.dice.below(5) {
            // Only Reserves, so that a batch may be rejected as a whole.
            0 => (0..number).map(|_| self.reserve(None)).collect(),
            _ => (0..number).map(|_| self.one()).collect(),
        }
    }
}

/// The first steps of a deletion. A partition is closed when its holds have ended, which a check finds out before.
struct Closing {
    token: Id,
    request: Id,
    is_checked: bool,
    attempts: usize,
}

impl Closing {
    fn begin(operations: &mut Operations) -> Self {
        Self { token: operations.new_id(), request: operations.new_id(), is_checked: false, attempts: 0 }
    }

    fn operation(&self, operations: &mut Operations) -> Operation {
        let memo = operations.new_id();
        Operation::ClosePartition { memo, token: self.token, request: self.request, only_check: !self.is_checked }
    }

    /// Cancels the deletion of a closed partition, so that the next steps have one.
    async fn cancel(&self, twins: &Twins, other: Id) {
        let step = async |step, token| {
            let reply = twins.call(|keys| deletion_command("", keys, step, &token)).await.expect("a step");
            decode_step(&reply).expect("the result of a step")
        };
        assert!(matches!(step(DeletionStep::Take, other).await, Stepped::Taken(_)));
        assert_eq!(step(DeletionStep::Reopen, self.token).await, Stepped::Overtaken);
        assert_eq!(step(DeletionStep::Reopen, other).await, Stepped::Done);
    }
}

/// The steps of a settlement of this fence, each a batch.
fn settlement(operations: &mut Operations, fence: FenceId) -> Vec<Vec<Operation>> {
    let (memo, key) = (operations.new_id(), operations.new_id());
    let mut steps = vec![vec![Operation::BeginSettlement { memo, key, fence }]];
    for (i, name) in SKUS.into_iter().enumerate() {
        let sku = Sku::parse(name.into(), "sku").expect("a SKU");
        let available = operations.on_hand();
        steps.push(vec![Operation::SettleSku { key, sku, available, old_holds_return: i % 2 == 0, only_known: i > 1 }]);
    }
    steps.push(vec![Operation::EndSettlement { memo: operations.new_id(), key }]);
    steps
}

async fn compare(format: u8) {
    let mut twins = Twins::open(format).await;
    let dice = Dice(TestRunner::deterministic());
    let may_pause = format >= FIRST_WITH_PAUSE;
    let mut operations = Operations { dice, made: Vec::new(), memos: Vec::new(), next: 0, may_pause };
    let (mut latest, mut settling): (Option<HistoryPoint>, Vec<Vec<Operation>>) = (None, Vec::new());
    let mut closing: Option<Closing> = None;
    let (mut expired, mut fences, mut closed, mut errors) = (0, 0, 0, 0);
    let mut seen = BTreeMap::<String, usize>::new();
    let mut clock = twins.time;
    for step in 0..STEPS {
        if closing.is_none() && operations.dice.one_in(40) {
            closing = Some(Closing::begin(&mut operations));
        }
        let is_closing = settling.is_empty() && closing.is_some();
        let batch: Vec<Operation> = match &closing {
            _ if !settling.is_empty() => settling.remove(0),
            Some(closing) => vec![closing.operation(&mut operations)],
            None => operations.some(),
        };
        // Usually a little later. Rarely the clock of the store makes a step, or much time passes. All holds are due
        // when a partition is closed.
        twins.time = match operations.dice.below(40) {
            _ if is_closing => twins.time + 2 * TTL.as_millis() as u64,
            0 => twins.time.saturating_sub(5_000),
            1 => twins.time + 8_000,
            2 => twins.time + 30_000,
            _ => twins.time + [0, 1, 20, 200][operations.dice.below(4)],
        };
        twins.set_time().await;
        let clock_choice = operations.dice.below(4);
        let claims = match latest {
            Some(point) if step % 97 == 96 => vec![HistoryPoint { sequence: point.sequence + 1_000, ..point }],
            Some(point) if !operations.dice.one_in(3) => vec![point],
            _ => Vec::new(),
        };
        // Sent in the future, so that the expected instant is exactly the reading.
        let sent = Instant::now() + Duration::from_secs(3_600);
        let reading = |now| Some(Reading { now: StoreTime(now), sent });
        let reading = match clock_choice {
            _ if is_closing => reading(twins.time.max(clock)),
            0 => None,
            1 => reading(clock),
            _ => reading(twins.time.max(clock)),
        };
        let knowledge = Knowledge { gates: format > 1, claims, reading };
        let grouped = Batch::new(&batch, TTL);
        let what = format!("format {format}, step {step}: {batch:?}");
        let call = |keys: &PartitionKeys| grouped.command("", keys, EPOCH, &knowledge, None::<Term>);
        eprintln!("{what}");
        let mut is_closed = false;
        match twins.call(call).await {
            Ok(reply) => {
                count_codes(&mut seen, &reply);
                let Reply { now, sequence, term, fence, expired: given_back, results, .. } =
                    grouped.decode(&reply, 0, batch).unwrap_or_else(|error| panic!("{what}: {error}"));
                clock = now.0;
                expired += given_back;
                latest = (format > 1).then_some(HistoryPoint { epoch: EPOCH, term, sequence });
                if let Some(fence) = fence.filter(|_| settling.is_empty()) {
                    fences += 1;
                    settling = settlement(&mut operations, fence.id);
                }
                if let Some(closing) = closing.as_mut().filter(|_| is_closing) {
                    closing.attempts += 1;
                    let mut answers = results.iter().filter_map(|result| match result {
                        OperationResult::Answered(answer) => Some(&answer.outcome),
                        OperationResult::Again(_) => None,
                    });
                    if answers.any(|outcome| *outcome == Ok(Outcome::Closed)) {
                        is_closed = closing.is_checked;
                        closing.is_checked = true;
                    }
                }
            }
            Err(error) => {
                assert!(!error.contains("ERR"), "{what}: {error}");
                errors += 1;
            }
        }
        if let Some(done) = closing.take_if(|closing| is_closed || closing.attempts > CLOSING_ATTEMPTS)
            && is_closed
        {
            twins.call(call).await.expect_err("a closed partition");
            done.cancel(&twins, operations.new_id()).await;
            closed += 1;
        }
    }
    assert!(expired > 50 && errors * 5 < STEPS, "{expired} expired, {errors} errors");
    assert!(format == 1 || fences > 0, "nothing was settled");
    assert!(closed > 3, "closed {closed} times");
    // Most codes occurred. The message has the count of each.
    let has = |code: AnswerCode| seen.contains_key(&char::from(code.byte()).to_string());
    assert!(seen.len() > 20 && has(AnswerCode::HasHolds), "{seen:?}");
    assert_eq!(has(AnswerCode::SalePaused), may_pause, "{seen:?}");
    assert!(OpKind::ALL.len() == 20, "a new kind belongs into `Operations::one`");
}

/// Counts the codes in a reply.
fn count_codes(seen: &mut BTreeMap<String, usize>, reply: &Value) {
    let Value::Array(parts) = reply else { panic!("{reply:?}") };
    for part in &parts[1..] {
        let Value::Array(group) = part else { panic!("{part:?}") };
        let Value::BulkString(codes) = &group[0] else { panic!("{group:?}") };
        for code in codes {
            *seen.entry(char::from(*code).to_string()).or_default() += 1;
        }
    }
}

#[tokio::test]
async fn a_block_that_runs_without_need_changes_nothing() {
    compare(5).await;
}

#[tokio::test]
async fn a_block_that_runs_without_need_changes_nothing_in_older_formats() {
    for format in [1, 3] {
        compare(format).await;
    }
}
