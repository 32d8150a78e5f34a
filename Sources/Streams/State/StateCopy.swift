import Base
import EventLog
import RecordFormat

/// A task's state as its changelog tells it, brought into a database here: where a task begins that another node had, and what
/// stands by for the day when this one gets it. Whole checkpoints alone count.
///
/// A checkpoint that is larger than `memory` (the first of a changelog that was compacted holds the whole state) is brought in
/// part by part. The database then says that it is open, serves nobody, and goes on where it was left.
package final class StateCopy {
    /// What a copy keeps in memory of a checkpoint that is not whole yet, in bytes.
    package static let defaultMemory = 32 << 20
    /// Of one change, besides its key and its value.
    private static let changeBytes = 160
    /// Bytes of one page of the changelog.
    private static let pageBytes = 1 << 20

    private struct Change {
        let store: String
        let place: UInt64
        let key: String
        var value: [UInt8]?
    }

    private let log: any EventLog
    private let place: TopicPartition
    private let database: StateDatabase
    private let prefix: [UInt8]
    /// First offset that was not read.
    private var next: Int64
    /// Of the checkpoint that is not whole yet: each key's newest value, in the order in which the keys came.
    private var changes: [Change] = []
    private var numbers: [[UInt8]: Int] = [:]
    private var held = 0
    private let memory: Int
    /// What the database says while a checkpoint is in it in part.
    private let openMeta: [String: String]

    /// - Parameter database: nobody else's from here on; what is in it and is not of this changelog goes.
    package init(
        log: any EventLog, place: TopicPartition, database: StateDatabase, identity: Digest?,
        memory: Int = defaultMemory
    ) throws {
        self.memory = memory
        openMeta = [
            StateDatabase.changelogIsOpen: "1", StateDatabase.identity: identity?.hex ?? "",
        ]
        self.log = log
        self.place = place
        self.database = database
        prefix = ChangelogRecord.prefix(identity)
        next = 0
        let known = try database.claim(identity: identity)
        let end = try log.offsets(place).upperBound
        if let known, known <= end, known >= (try log.offsets(place).lowerBound) {
            next = known
        } else {
            try database.clear()
        }
    }

    /// Reads everything that the changelog holds by now.
    /// - Parameter isStopping: asked between pages.
    /// - Throws: `stopped` when it says so.
    package func catchUp(unless isStopping: () -> Bool = { false }) throws {
        while try advance() {
            guard !isStopping() else { throw StreamsError("stopped", "the state of \(place) is not wanted any more") }
        }
    }

    /// Reads a page on; false where nothing more is there yet.
    package func advance() throws -> Bool {
        let range = try log.offsets(place)
        guard next < range.upperBound else { return false }
        let batches = try log.read(place, from: max(next, range.lowerBound), maxBytes: Self.pageBytes)
        guard let last = batches.last else { return false }
        for batch in batches {
            for index in batch.records.indices where batch.records[index].offset >= next {
                try take(StoredEvent(batch: batch, index: index))
            }
        }
        next = last.header.lastOffset + 1
        return true
    }

    private func take(_ event: StoredEvent) throws {
        guard let key = event.key, key.starts(with: prefix) else { return }
        guard key.count > prefix.count else { return try end(event) }
        guard let (store, place, text) = ChangelogRecord.parse(key) else {
            throw StreamsError(
                "bad-changelog",
                "\(self.place)@\(event.offset) is no change of a state; who wrote it is no fold of this program",
                fault: .world)
        }
        let value = event.data
        held += value?.count ?? 0
        if let known = numbers[key] {
            held -= changes[known].value?.count ?? 0
            changes[known].value = value
        } else {
            held += Self.changeBytes + 2 * key.count
            numbers[key] = changes.count
            changes.append(Change(store: store, place: place, key: text, value: value))
        }
        if held > memory { try write([], openMeta, behind: event) }
    }

    private func end(_ event: StoredEvent) throws {
        guard let data = event.data, let (inputs, meta) = ChangelogRecord.parseEnd(data) else {
            throw StreamsError(
                "bad-changelog", "\(place)@\(event.offset) does not say how far a state was folded", fault: .world)
        }
        try write(inputs, meta.merging([StateDatabase.changelogIsOpen: "0"]) { $1 }, behind: event)
        database.flush()
    }

    private func write(
        _ inputs: [StateDatabase.InputPosition], _ meta: [String: String], behind event: StoredEvent
    ) throws {
        var deltas: [StateDelta] = []
        var found: [String: Int] = [:]
        for change in changes {
            let number = found[change.store] ?? deltas.count
            if number == deltas.count {
                found[change.store] = number
                deltas.append(StateDelta(store: change.store))
            }
            deltas[number].append(change.key, place: change.place, encoded: change.value)
        }
        changes.removeAll(keepingCapacity: true)
        numbers.removeAll(keepingCapacity: true)
        held = 0
        _ = try database.checkpoint(
            deltas, inputs: inputs, meta: meta.merging([StateDatabase.changelog: String(event.offset + 1)]) { $1 })
    }
}
