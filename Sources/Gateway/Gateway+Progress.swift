import Base
import EventLog
import RecordFormat

/// What the gateway promises about the topics it feeds. A fold goes by logged progress only, so the gateway logs it with
/// the events themselves: complete up to just before the newest event, and, a moment after the last one, complete through
/// it and idle. What comes later with an earlier time is late, live and in every replay.
struct GatewayFeed {
    var inputs: [TopicPartition] = []
    /// Topics that a connector feeds which has not finished; they are its own until then.
    var claimed: Set<String> = []
    var newest = Instant.distantPast
    /// An instant is open: its progress has not been closed.
    var open = false
    var lastPublish = Instant.distantPast
    /// Counts the closed instants, and appends with late events, so that late events of several partitions have an order
    /// that a replay finds again (decision 12).
    var round: Int64 = 0
    var lastRound = Instant.distantPast
    /// What was last promised to be complete.
    var promised = Instant.distantPast
    /// Appends on their way: an instant is not closed before they have arrived.
    var underWay = 0
}

extension Gateway {
    /// How long after the last event an instant is closed, in milliseconds.
    package static let closeAfter: Int64 = 50
    /// How far apart rounds for late events are, in milliseconds: each costs an event in every partition that is fed.
    private static let roundEvery: Int64 = 10

    /// Names the partitions a fold reads.
    package func feed(inputs: [TopicPartition], claimed: Set<String>) {
        feeds.withLock {
            $0.inputs = inputs
            $0.claimed = claimed
        }
    }

    /// A connector has finished: its topics may be published to.
    package func release(_ topics: [String]) { feeds.withLock { $0.claimed.subtract(topics) } }

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

    /// The progress that goes with accepted events, in the same append; where there is any, `arrived` follows.
    func progress(with events: [(topic: String, partition: Int?, event: NewEvent)]) -> [(
        topic: String, partition: Int?, event: NewEvent
    )] {
        feeds.withLock { feed in
            let topics = Set(feed.inputs.map(\.topic))
            let times = events.filter { topics.contains($0.topic) }.map(\.event.time)
            let fed = feed.inputs.filter { !feed.claimed.contains($0.topic) }
            guard let newest = times.max(), let oldest = times.min(), !fed.isEmpty else { return [] }
            // Without a new round, late ones would be folded only when time goes on or the instant is closed.
            let now = clock()
            if oldest <= feed.promised, now - feed.lastRound >= Self.roundEvery {
                feed.round += 1
                feed.lastRound = now
            }
            feed.open = true
            feed.underWay += 1
            let (through, round) = (max(feed.newest, newest) + -1, feed.round)
            feed.promised = max(feed.promised, through)
            return fed.map { ($0.topic, $0.partition, Self.progress($0, through, "active", round)) }
        }
    }

    /// An append with progress has come to its end.
    /// - Parameter newest: the newest time in it; nil when it failed, so that an event that is not there closes nothing.
    func arrived(_ newest: Instant?) {
        feeds.withLock { feed in
            feed.underWay -= 1
            feed.lastPublish = clock()
            if let newest { feed.newest = max(feed.newest, newest) }
        }
    }

    /// Times of progress are one millisecond before the newest event they go with.
    static func newest(of progress: [(topic: String, partition: Int?, event: NewEvent)]) -> Instant? {
        progress.first.map { $0.event.time + 1 }
    }

    /// Closes an instant that has been open long enough. Called by a thread of the node's.
    package func closeInstant() throws(EventLogError) {
        let events: [(topic: String, partition: Int?, event: NewEvent)] = feeds.withLock { feed in
            guard feed.open, feed.underWay == 0, clock() - feed.lastPublish >= Self.closeAfter else { return [] }
            feed.open = false
            feed.round += 1
            feed.promised = max(feed.promised, feed.newest)
            return Self.closing(feed)
        }
        guard !events.isEmpty else { return }
        do {
            _ = try log.append(LogAppend(principal: "gateway", events: events))
        } catch {
            // Still to be closed: progress that is there twice says the same.
            feeds.withLock { $0.open = true }
            throw error
        }
    }

    private static func closing(_ feed: GatewayFeed) -> [(topic: String, partition: Int?, event: NewEvent)] {
        feed.inputs.filter { !feed.claimed.contains($0.topic) }.map {
            ($0.topic, $0.partition, progress($0, feed.newest, "idle", feed.round))
        }
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
        let resumed = feed
        feeds.withLock {
            $0.newest = resumed.newest
            $0.promised = resumed.newest
            $0.round = resumed.round
        }
        guard open else { return }
        _ = try log.append(LogAppend(principal: "gateway", events: Self.closing(resumed)))
    }
}
