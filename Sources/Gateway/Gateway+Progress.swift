import Base
import EventLog
import RecordFormat

/// What the gateway promises about the topics it feeds. A fold goes by logged progress only, so the gateway logs it with
/// the events themselves: complete up to just before the newest event, and, a moment after the last one, complete through
/// it and idle. What comes later with an earlier time is late, live and in every replay. A topic with a lateness is as much
/// behind with both.
struct GatewayFeed {
    var inputs: [TopicPartition] = []
    /// Topics that a connector feeds which has not finished; they are its own until then.
    var claimed: Set<String> = []
    /// The others, which the gateway feeds.
    private(set) var fed: Set<String> = []
    var newest = Instant.distantPast
    /// An instant is open: its progress has not been closed in every topic.
    var open = false
    /// Topics with a lateness up to this, in milliseconds, are closed.
    var closed: Int64 = -1
    /// Of topics that have one, in milliseconds.
    var lateness: [String: Int64] = [:]
    var lastPublish = Instant.distantPast
    /// Counts the closed instants, and appends with late events, so that late events of several partitions have an order
    /// that a replay finds again (decision 12).
    var round: Int64 = 0
    var lastRound = Instant.distantPast
    /// What was last promised to be complete.
    var promised = Instant.distantPast
    /// Appends on their way: an instant is not closed before they have arrived.
    var underWay = 0
    /// The newest promise that stands in the log behind whatever closed an instant before, and the events since.
    var said: (through: Instant, round: Int64)?
    var unsaid = 0
    /// Counts up where a promise that is on its way would no longer be the last word: an instant is closed, or other
    /// partitions are fed.
    var epoch = 0
    /// What closes an instant is on its way: whatever is said meanwhile may stand before it.
    var isClosing = false

    /// What was said holds no longer, and what is said next has a name of its own.
    mutating func begin() {
        said = nil
        unsaid = 0
        epoch += 1
        round += 1
        fed = Set(inputs.map(\.topic)).subtracting(claimed)
    }

    /// The least lateness of topics that are still open, in milliseconds.
    var nextLateness: Int64 { fed.map { lateness[$0] ?? 0 }.filter { $0 > closed }.min() ?? .max }

    /// Nothing came for so many milliseconds.
    mutating func close(through quiet: Int64) {
        closed = quiet
        open = fed.contains { lateness[$0] ?? 0 > closed }
    }
}

/// What goes with accepted events.
struct GatewayProgress: Sendable {
    /// Empty where the log says it already.
    var entries: [Intake.Entry] = []
    /// The newest time among the events and before; nil where no fold reads them. Otherwise `arrived` follows.
    var newest: Instant?
    fileprivate var says: (through: Instant, round: Int64)?
    fileprivate var epoch = 0
}

extension Gateway {
    /// How long after the last event an instant is closed, in milliseconds.
    package static let closeAfter: Int64 = 50
    /// How far apart rounds for late events are, in milliseconds: each costs an event in every partition that is fed.
    private static let roundEvery: Int64 = 10
    /// A promise is said again after so many events, so that a start finds one near the end.
    private static let sayEvery = 1000

    /// Names the partitions a fold reads.
    package func feed(inputs: [TopicPartition], claimed: Set<String>) {
        var lateness: [String: Int64] = [:]
        for topic in Set(inputs.map(\.topic)) {
            if let allowed = self.topic(topic)?.lateness, allowed > 0 { lateness[topic] = allowed }
        }
        feeds.withLock {
            $0.inputs = inputs
            $0.claimed = claimed
            $0.lateness = lateness
            $0.begin()
        }
    }

    /// Feeds further partitions, which a fold that has just come reads. What stands in them already is closed with the next
    /// instant.
    package func feed(also more: [TopicPartition]) throws {
        let fresh = feeds.withLock { feed in more.filter { !feed.inputs.contains($0) } }
        guard !fresh.isEmpty else { return }
        var newest = Instant(milliseconds: 0)
        for partition in fresh {
            let range = try log.offsets(partition)
            let from = max(range.lowerBound, range.upperBound - Int64(Limits.batchEvents))
            try forEachReadable(partition, from: from, below: range.upperBound) { event in
                if !event.isProgress { newest = max(newest, event.time) }
            }
        }
        let allowed = fresh.map { topic($0.topic)?.lateness ?? 0 }
        let said: [(topic: String, partition: Int?, event: NewEvent)] = feeds.withLock { feed in
            for (place, lateness) in zip(fresh, allowed) where !feed.inputs.contains(place) {
                feed.inputs.append(place)
                if lateness > 0 { feed.lateness[place.topic] = lateness }
            }
            feed.newest = max(feed.newest, newest)
            feed.begin()
            feed.open = true
            feed.closed = -1
            feed.lastPublish = clock()
            // What was promised of all the others holds for these as well: nobody waits for a lateness that is long over.
            guard feed.promised > Instant(milliseconds: 0) else { return [] }
            return zip(fresh, allowed).filter { !feed.claimed.contains($0.0.topic) }.map { place, lateness in
                (place.topic, place.partition, Self.progress(place, feed.promised + -lateness, "active", feed.round))
            }
        }
        if !said.isEmpty { _ = try log.append(LogAppend(principal: "gateway", events: said)) }
    }

    /// A connector has finished: its topics may be published to.
    package func release(_ topics: [String]) {
        feeds.withLock {
            $0.claimed.subtract(topics)
            $0.begin()
        }
    }

    func isClaimed(_ topic: String) -> Bool { feeds.withLock { $0.claimed.contains(topic) } }

    private static func progress(
        _ partition: TopicPartition, _ through: Instant, _ state: String, _ round: Int64
    ) -> NewEvent {
        NewEvent(
            id: "progress:gateway:\(partition.partition):\(through.milliseconds):\(state):\(round)",
            source: "headrace:/gateway", type: EventType.progress, time: through,
            data: [UInt8]("{\"through\":\"\(through)\",\"state\":\"\(state)\",\"round\":\(round)}".utf8))
    }

    /// Rounds beyond this are nobody's: JSON keeps whole numbers up to here everywhere.
    static let roundLimit: Int64 = 1 << 53

    /// The progress that goes with accepted events, in the same append; where events are a fold's, `arrived` follows.
    func progress(with events: [Intake.Entry]) -> GatewayProgress {
        feeds.withLock { feed in
            var newest = Instant.distantPast
            // With its lateness, so that all topics are held against the same promise.
            var oldest = Instant.distantFuture
            var fed = 0
            for entry in events where feed.fed.contains(entry.topic) {
                newest = max(newest, entry.event.time)
                oldest = min(oldest, entry.event.time + (feed.lateness[entry.topic] ?? 0))
                fed += 1
            }
            guard fed > 0 else { return GatewayProgress() }
            // Without a new round, late ones would be folded only when time goes on or the instant is closed.
            let now = clock()
            if oldest <= feed.promised, now - feed.lastRound >= Self.roundEvery {
                feed.round += 1
                feed.lastRound = now
            }
            feed.open = true
            feed.closed = -1
            feed.underWay += 1
            feed.unsaid += fed
            // Under an id of its own, or the log would know it already.
            if feed.unsaid > Self.sayEvery || feed.isClosing { feed.round += 1 }
            newest = max(feed.newest, newest)
            let (through, round) = (newest + -1, feed.round)
            feed.promised = max(feed.promised, through)
            var progress = GatewayProgress(newest: newest, epoch: feed.epoch)
            // Every partition would get an event that says what the one before it said.
            if !feed.isClosing, let said = feed.said, said.through >= through, said.round >= round { return progress }
            progress.says = (through, round)
            feed.unsaid = 0
            for place in feed.inputs where !feed.claimed.contains(place.topic) {
                let known = through + -(feed.lateness[place.topic] ?? 0)
                progress.entries.append((place.topic, place.partition, Self.progress(place, known, "active", round)))
            }
            return progress
        }
    }

    /// An append with a fold's events has come to its end.
    /// - Parameter isThere: false when it failed: an event that is not there closes nothing, and what it said was not said.
    func arrived(_ progress: GatewayProgress, isThere: Bool) {
        feeds.withLock { feed in
            feed.underWay -= 1
            feed.lastPublish = clock()
            guard isThere, let newest = progress.newest else { return }
            feed.newest = max(feed.newest, newest)
            guard let says = progress.says, progress.epoch == feed.epoch else { return }
            if let said = feed.said, said.through >= says.through, said.round >= says.round { return }
            feed.said = says
        }
    }

    /// Closes an instant that has been open long enough, in each topic after its lateness. Called by a thread of the node's.
    package func closeInstant() throws(EventLogError) {
        var before: Int64 = -1
        let events: [(topic: String, partition: Int?, event: NewEvent)] = feeds.withLock { feed in
            let quiet = clock() - feed.lastPublish
            guard feed.open, feed.underWay == 0, quiet >= Self.closeAfter, feed.nextLateness <= quiet else { return [] }
            before = feed.closed
            feed.close(through: quiet)
            feed.begin()
            feed.promised = max(feed.promised, feed.newest)
            feed.isClosing = true
            return Self.closing(feed, above: before)
        }
        guard !events.isEmpty else { return feeds.withLock { $0.isClosing = false } }
        defer {
            feeds.withLock { feed in
                feed.isClosing = false
                feed.begin()
            }
        }
        do {
            _ = try log.append(LogAppend(principal: "gateway", events: events))
        } catch {
            // Still to be closed: progress that is there twice says the same.
            feeds.withLock { feed in
                feed.open = true
                feed.closed = min(feed.closed, before)
            }
            throw error
        }
    }

    /// - Parameter above: topics with a lateness up to this are closed already.
    private static func closing(
        _ feed: GatewayFeed, above: Int64
    ) -> [(topic: String, partition: Int?, event: NewEvent)] {
        feed.inputs.filter { place in
            let lateness = feed.lateness[place.topic] ?? 0
            return !feed.claimed.contains(place.topic) && lateness > above && lateness <= feed.closed
        }.map { ($0.topic, $0.partition, progress($0, feed.newest, "idle", feed.round)) }
    }

    /// Steps over what is damaged: a start that it stopped could not serve what is left.
    private func forEachReadable(
        _ partition: TopicPartition, from: Int64, below end: Int64, _ body: (StoredEvent) -> Void
    ) throws {
        var next = from
        var stride: Int64 = 1
        while next < end {
            do {
                return try log.forEachEvent(partition, from: next) { event in
                    next = event.offset + 1
                    stride = 1
                    body(event)
                    return true
                }
            } catch let error as EventLogError where error.code == "rot" {
                // Ever longer steps: a few readable events behind the damage may be passed over, which costs nothing here.
                next += stride
                stride *= 2
            }
        }
    }

    /// After a start: an instant that a crash left open is closed, and what nobody feeds is idle.
    package func resumeFeeds() throws {
        var feed = feeds.withLock { $0 }
        var open = false
        let document = JSONDocument()
        for partition in feed.inputs {
            let range = try log.offsets(partition)
            let isClaimed = feed.claimed.contains(partition.topic)
            var idle = false
            let from = max(range.lowerBound, range.upperBound - Int64(Limits.batchEvents))
            try forEachReadable(partition, from: from, below: range.upperBound) { event in
                if event.isProgress {
                    // On Kafka anybody may have written it.
                    guard (try? document.parse(event.data ?? [])) != nil else { return }
                    let state = document.member(0, "state").flatMap { document.string($0) }
                    idle = state == "idle" || state == "finished"
                    let round = document.member(0, "round").flatMap { document.int($0) } ?? 0
                    if (0..<Self.roundLimit).contains(round) { feed.round = max(feed.round, round) }
                } else {
                    idle = false
                    if !isClaimed { feed.newest = max(feed.newest, event.time) }
                }
            }
            open = open || !(idle || isClaimed)
        }
        if open { feed.round += 1 }
        feed.newest = max(feed.newest, Instant(milliseconds: 0))
        // What has a lateness stays open for that long again: nobody knows since when nothing came.
        feed.close(through: 0)
        let resumed = feed
        feeds.withLock {
            $0.newest = resumed.newest
            $0.promised = resumed.newest
            $0.round = resumed.round
            $0.closed = resumed.closed
            $0.open = open && resumed.open
            $0.lastPublish = clock()
        }
        let events = Self.closing(resumed, above: -1)
        guard open, !events.isEmpty else { return }
        _ = try log.append(LogAppend(principal: "gateway", events: events))
    }
}
