import Base
import EventLog
import RecordFormat

/// Where an event comes in the fold. One in time comes by its event time. A late one comes behind everything of the time that
/// its partition was complete through when it was written, in the order of the rounds that progress counts; so its place,
/// too, depends on the log and not on who read what first.
struct FoldPlace: Comparable {
    let time: Instant
    /// -1 in time; of a late event, the newest round before it in its partition.
    let round: Int64

    static let inTime: Int64 = -1
    static let end = FoldPlace(time: .distantFuture, round: .max)

    /// Timers up to this moment fire before it.
    var timersBefore: Instant { round == FoldPlace.inTime ? time + -1 : time }

    static func < (left: FoldPlace, right: FoldPlace) -> Bool {
        left.time == right.time ? left.round < right.round : left.time < right.time
    }
}

/// How far one input partition has been read, what waits in memory, and what its progress events promise.
struct InputCursor {
    enum Source { case unstarted, active, idle, finished }

    let partition: TopicPartition
    /// Position in the topology's list of inputs: the tie-breaker at equal times.
    let rank: Int
    /// Answers of effectors have no source of their own: they are bounded by the requests that are open. Attachments come
    /// in the same append as an answer and are bounded by nothing. What another fold writes is in the order of its times, but
    /// for what a source of its own brought that had fallen silent and woke up behind the others: that is late here.
    enum Role { case source, answer, attachment, derived }

    let role: Role
    var source = Source.unstarted
    var completeThrough = Instant.distantPast
    /// Newest round that progress named: a writer that cannot keep late events from coming counts them, over all partitions.
    var round: Int64 = 0
    /// Offset of the next event to fold.
    var next: Int64 = 0
    /// Where the input ends in a bounded replay.
    var end: Int64?
    /// Its events may come out of the order of their times: those in time wait until it is complete through theirs.
    var sorts = false
    /// At its end it bounds nothing: whatever is wanted of it stands below.
    var endsWanted = false
    private var batches: [RecordBatch] = []
    private var batch = 0
    private var index = 0
    private var fetched: Int64 = 0
    /// The log's version when it was last read.
    private(set) var fetchedVersion: UInt64 = 0
    private(set) var headPlace = FoldPlace.end
    /// Of a derived input.
    var upstream: UpstreamCursor?

    static let fetchBytes = 512 << 10

    init(partition: TopicPartition, rank: Int, role: Role, next: Int64 = 0) {
        self.partition = partition
        self.rank = rank
        self.role = role
        self.next = next
        fetched = next
    }

    var hasHead: Bool { batch < batches.count }

    /// Everything below its end was folded.
    var isAtEnd: Bool { !hasHead && end.map { fetched >= $0 || next >= $0 } ?? false }

    /// Reads on behind its end, up to another one.
    mutating func goOn(until end: Int64?) {
        next = max(next, self.end ?? next)
        self.end = end
        endsWanted = false
        fetched = next
        fetchedVersion = 0
    }

    /// Reads more when nothing waits. True when something came.
    mutating func fetch(_ log: any EventLog, _ document: JSONDocument) throws(EventLogError) -> Bool {
        guard !hasHead else { return false }
        fetchedVersion = log.waitForChange(after: 0, seconds: 0)
        if let end, fetched >= end { return false }
        batches = try log.read(partition, from: fetched, maxBytes: InputCursor.fetchBytes)
        batch = 0
        index = 0
        guard let last = batches.last else {
            // What is left below a replay's end are the log's own markers.
            if let end, log.isReadable(partition, from: fetched) {
                next = max(next, end)
                fetched = max(fetched, end)
            }
            return false
        }
        let from = fetched
        fetched = last.header.lastOffset + 1
        try upstream?.fetch(log, through: fetched, document)
        // A restart may begin in the middle of a batch.
        while index < batches[0].records.count, batches[0].records[index].offset < from { index += 1 }
        settle()
        return hasHead
    }

    /// Steps over emptied batches and notes the time of the head.
    private mutating func settle() {
        while batch < batches.count {
            if index < batches[batch].records.count {
                let record = batches[batch].records[index]
                if let end, record.offset >= end { break }
                // What was said before it was written, whenever that is read.
                if upstream != nil { _ = believe(record.offset) }
                headPlace = place(Instant(milliseconds: record.timestamp))
                return
            }
            batch += 1
            index = 0
        }
        batches = []
        batch = 0
        index = 0
        headPlace = .end
    }

    private func place(_ time: Instant) -> FoldPlace {
        // What no calendar has would wait for ever, and everything behind it: it goes to the side at once.
        let isLate =
            ((role == .source || role == .derived) && source != .unstarted && time <= completeThrough)
            || !Instant.written.contains(time)
        return isLate
            ? FoldPlace(time: completeThrough, round: round) : FoldPlace(time: time, round: FoldPlace.inTime)
    }

    /// The head is behind what its partition was complete through.
    var headIsLate: Bool { headPlace.round != FoldPlace.inTime }

    /// Takes every progress event at the head, so that the head is an event or nothing.
    mutating func absorbProgress(_ document: JSONDocument) {
        while hasHead {
            let event = StoredEvent(batch: batches[batch], index: index)
            guard event.isProgress else { return }
            apply(event, document)
            advance()
        }
    }

    private mutating func apply(_ event: StoredEvent, _ document: JSONDocument) {
        let parsed: Bool? = event.withData { raw in (try? document.parse(raw)) != nil }
        guard parsed == true else { return }
        var progress = PartitionProgress(through: completeThrough, round: round)
        progress.apply(document)
        (completeThrough, round) = (progress.through, progress.round)
        switch document.member(0, "state").flatMap({ document.string($0) }) {
        case "idle": source = .idle
        case "finished": source = .finished
        default: source = .active
        }
    }

    /// Takes what the writer of a derived input says. True when it said something that is true here by now.
    mutating func follow(_ log: any EventLog, _ document: JSONDocument) throws(EventLogError) -> Bool {
        guard !hasHead, upstream != nil else { return false }
        try upstream?.fetch(log, through: fetched, document)
        return believe(next)
    }

    /// Takes what was said of everything below an offset. True when there was something.
    private mutating func believe(_ offset: Int64) -> Bool {
        var changed = false
        while let statement = upstream?.take(readThrough: offset) {
            completeThrough = max(completeThrough, statement.through)
            source = statement.isFinished ? .finished : .active
            changed = true
        }
        return changed
    }

    func head() -> StoredEvent { StoredEvent(batch: batches[batch], index: index) }
    var headBatch: RecordBatch { batches[batch] }

    mutating func advance() {
        next = batches[batch].records[index].offset + 1
        index += 1
        settle()
    }

    /// Everything that still comes has its place at or behind this one; nil when the partition bounds nothing.
    func bound(hold: Instant?) -> FoldPlace? {
        if endsWanted, isAtEnd { return nil }
        if role == .answer || role == .attachment {
            return role == .answer ? hold.map { FoldPlace(time: $0 + -1, round: .max) } : nil
        }
        switch source {
        case .unstarted:
            return end.map { next >= $0 } == true ? nil : FoldPlace(time: .distantPast, round: FoldPlace.inTime)
        case .active: return FoldPlace(time: completeThrough, round: round)
        case .idle, .finished: return nil
        }
    }
}
