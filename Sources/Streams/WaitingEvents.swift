import Base
import EventLog
import RecordFormat

/// Events that were read before their turn: of topics whose events may come out of the order of their times. In memory and in
/// the state stands where they are; the log has what they say. They come in the order of (time, input, offset).
struct WaitingEvents {
    /// Before the name of a partition: what was taken of it last.
    static let releasedMark = "released/"
    /// Under this name stand the partitions by whose numbers events wait.
    static let inputsMark = "waiting"
    /// Under this name stands what is older than stream time and was not folded yet.
    static let behindMark = "behind"

    private var queue = TimerQueue(store: "runner.waiting")
    /// By input, the last that was taken.
    var released: [Int: TimerQueue.Entry] = [:]
    private var shelves: [Int: BatchShelf] = [:]

    var store: StateStore<TimerMark> { queue.store }

    mutating func restore() { queue.restore() }
    mutating func checkpointBegins() { queue.checkpointBegins() }
    mutating func shrink() { queue.shrink() }

    /// The first of them, with the number of its input.
    mutating func peek() -> TimerQueue.Entry? { queue.peek() }

    mutating func insert(_ event: StoredEvent, _ input: Int, of batch: RecordBatch) {
        shelves[input, default: BatchShelf()].keep(batch)
        queue.insert(TimerQueue.Entry(time: event.time, stage: input, key: Self.text(event.offset)))
    }

    /// Takes the first; nil where the log has it no longer, which a replay finds as well.
    mutating func take(_ log: any EventLog, _ inputs: [InputCursor]) throws -> (event: StoredEvent, input: Int)? {
        guard let entry = queue.take(), let offset = Self.offset(entry) else { return nil }
        let input = entry.stage
        released[input] = entry
        let event = try shelves[input, default: BatchShelf()].event(offset, inputs[input].partition, log)
        return event.map { ($0, input) }
    }

    /// As wide as the largest, so that they are ordered like numbers.
    private static func text(_ offset: Int64) -> String {
        let digits = String(offset)
        return String(repeating: "0", count: max(0, 19 - digits.utf8.count)) + digits
    }

    static func offset(_ entry: TimerQueue.Entry) -> Int64? { Int64(entry.key) }
}

/// Batches of a partition that were read lately: what waits comes in nearly the order in which it was read.
struct BatchShelf {
    /// Bytes kept, as they were written.
    private static let byteLimit = 32 << 20
    /// Bytes read at a time of what is kept no longer.
    private static let fetchBytes = 256 << 10

    private var batches: [RecordBatch] = []
    private var bytes = 0

    mutating func keep(_ batch: RecordBatch) {
        let at = place(of: batch.header.baseOffset)
        if at < batches.count, batches[at].header.baseOffset == batch.header.baseOffset { return }
        batches.insert(batch, at: at)
        bytes += batch.header.size
        // What was read last is wanted last; the first have been taken, for the most part.
        let isLast = at == batches.count - 1
        while bytes > Self.byteLimit, batches.count > 1 {
            let gone = isLast ? batches.removeFirst() : batches.removeLast()
            bytes -= gone.header.size
            if !isLast, batches.count == at + 1 { break }
        }
    }

    /// The first batch that does not end before an offset.
    private func place(of offset: Int64) -> Int {
        var (low, high) = (0, batches.count)
        while low < high {
            let middle = (low + high) / 2
            if batches[middle].header.lastOffset < offset { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// - Returns: nil where retention took it away.
    mutating func event(_ offset: Int64, _ partition: TopicPartition, _ log: any EventLog) throws -> StoredEvent? {
        let at = place(of: offset)
        if at < batches.count, let found = Self.find(offset, in: batches[at]) { return found }
        let fetched: [RecordBatch]
        do {
            fetched = try log.read(partition, from: offset, maxBytes: Self.fetchBytes)
        } catch {
            guard error.code == "trimmed" else { throw error }
            return nil
        }
        // Out of what came, and not off the shelf: there may be room for less.
        for batch in fetched { keep(batch) }
        guard let found = fetched.lazy.compactMap({ Self.find(offset, in: $0) }).first else {
            throw StreamsError(
                "lost-event", "\(partition)@\(offset) waited for its turn, and the log does not have it any more",
                fault: .world)
        }
        return found
    }

    private static func find(_ offset: Int64, in batch: RecordBatch) -> StoredEvent? {
        guard batch.header.baseOffset <= offset else { return nil }
        // Offsets rise, so this is near where it stands, unless compaction took others away.
        var index = min(Int(offset - batch.header.baseOffset), batch.records.count - 1)
        while index >= 0, batch.records[index].offset > offset { index -= 1 }
        guard index >= 0, batch.records[index].offset == offset else { return nil }
        return StoredEvent(batch: batch, index: index)
    }
}

/// Inputs whose events may come out of order.
extension TopologyRunner {
    /// The partitions, by their numbers.
    var waitingInputs: String { inputs.map(\.partition.description).joined(separator: " ") }

    /// What waits stands under the number of its input: with others in between it would be looked for elsewhere.
    func requireInputs(_ known: String?) throws(StreamsError) {
        guard let known, known != waitingInputs, waiting.store.count > 0 else { return }
        throw StreamsError(
            "other-inputs",
            "'\(label)' has events waiting of the inputs \(known), and there are \(waitingInputs) now (a partition was added): delete its state, and it is folded again from the log",
            fault: .world)
    }

    /// What waits, or was set as a timer, before the moment that was folded last: an input fell silent and woke up behind the
    /// others. Nobody can take over between.
    var behind: TimerQueue.Entry? {
        if let entry = waiting.peek() {
            let isPassed = waiting.released.contains { $0.value.time == entry.time && $0.key > entry.stage }
            if entry.time < context.now || (entry.time == context.now && isPassed) { return entry }
        }
        return context.timers.peek().flatMap { $0.time < context.now ? $0 : nil }
    }

    /// What waits may be in turn. Its input bounds it, like everything else: earlier ones may come until it is complete.
    func chooseWaiting(_ choice: inout Choice) {
        guard let entry = waiting.peek(), isWanted(entry) else { return }
        let place = FoldPlace(time: entry.time, round: FoldPlace.inTime)
        guard choice.best < 0 || place < choice.place || (place == choice.place && entry.stage < choice.best) else {
            return
        }
        (choice.best, choice.place, choice.waits) = (entry.stage, place, true)
    }

    /// Of a topology that is taken over from, what it left waiting is not wanted before its place.
    private func isWanted(_ entry: TimerQueue.Entry) -> Bool {
        guard let pending, pending.inputs[inputs[entry.stage].partition] != nil else { return true }
        guard entry.time == pending.now else { return entry.time < pending.now }
        guard let last = pending.waiting[inputs[entry.stage].partition], let offset = WaitingEvents.offset(entry) else {
            return false
        }
        return offset <= last
    }

    /// Reads a page on where something earlier than what is in turn may still stand. False where nothing came.
    func readSorted(_ index: Int) throws -> Bool {
        let choice = choose()
        let known = FoldPlace(time: inputs[index].completeThrough, round: inputs[index].round)
        guard choice.best < 0 || known <= choice.place,
            try inputs[index].fetch(log, progressDocument)
        else { return false }
        parkHeads(index)
        return true
    }

    /// Lets events wait until their turn comes; a late one has its place, and stays where it is.
    func parkHeads(_ index: Int) {
        while true {
            inputs[index].absorbProgress(progressDocument)
            guard inputs[index].hasHead, !inputs[index].headIsLate else { return }
            waiting.insert(inputs[index].head(), index, of: inputs[index].headBatch)
            parked += 1
            inputs[index].advance()
        }
    }

    func takeWaiting() throws -> (event: StoredEvent, input: Int)? { try waiting.take(log, inputs) }
}
