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
}

extension Gateway {
    /// How long after the last event an instant is closed, in milliseconds.
    package static let closeAfter: Int64 = 50

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

    private static func progress(_ partition: TopicPartition, _ through: Instant, _ state: String, _ time: Instant)
        -> NewEvent
    {
        NewEvent(
            id: "progress:gateway:\(partition.partition):\(through.milliseconds):\(state)", source: "headrace:/gateway",
            type: EventType.progress, time: time,
            data: [UInt8]("{\"through\":\"\(through)\",\"state\":\"\(state)\"}".utf8))
    }

    /// The progress that goes with accepted events, in the same append.
    func progress(with events: [(topic: String, partition: Int?, event: NewEvent)]) -> [(
        topic: String, partition: Int?, event: NewEvent
    )] {
        feeds.withLock { feed in
            let topics = Set(feed.inputs.map(\.topic))
            guard let newest = events.filter({ topics.contains($0.topic) }).map(\.event.time).max() else { return [] }
            feed.newest = max(feed.newest, newest)
            feed.open = true
            feed.lastPublish = clock()
            let through = feed.newest + -1
            return feed.inputs.filter { !feed.claimed.contains($0.topic) }.map {
                ($0.topic, $0.partition, Self.progress($0, through, "active", through))
            }
        }
    }

    /// Closes an instant that has been open long enough. Called by a thread of the node's.
    package func closeInstant() throws(EventLogError) {
        let events: [(topic: String, partition: Int?, event: NewEvent)] = feeds.withLock { feed in
            guard feed.open, clock() - feed.lastPublish >= Self.closeAfter else { return [] }
            feed.open = false
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
            ($0.topic, $0.partition, progress($0, feed.newest, "idle", feed.newest))
        }
    }

    /// After a start: an instant that a crash left open is closed, and what nobody feeds is idle.
    package func resumeFeeds() throws {
        var feed = feeds.withLock { $0 }
        var open = false
        let document = JSONDocument()
        for partition in feed.inputs where !feed.claimed.contains(partition.topic) {
            let range = try log.offsets(partition)
            var idle = false
            try log.forEachEvent(partition, from: max(range.lowerBound, range.upperBound - Int64(Limits.batchEvents))) {
                event in
                if event.isProgress {
                    try document.parse(event.data ?? [])
                    let state = document.member(0, "state").flatMap { document.string($0) }
                    idle = state == "idle" || state == "finished"
                } else {
                    idle = false
                    feed.newest = max(feed.newest, event.time)
                }
                return true
            }
            open = open || !idle
        }
        guard open else { return }
        feed.newest = max(feed.newest, Instant(milliseconds: 0))
        let resumed = feed
        feeds.withLock { $0.newest = resumed.newest }
        _ = try log.append(LogAppend(principal: "gateway", events: Self.closing(resumed)))
    }
}
