import Base
import Foundation
import GRDB

/// Goes through a run's entries in order, chunk by chunk.
final class StateCursor {
    private let run: StateRun
    private let statement: Statement
    private var next: Int
    private var buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: StateChunk.limit, alignment: 8)
    private var length = 0
    private var offset = 0
    /// Good until the cursor advances; nil at the end.
    private(set) var entry: StateEntry?

    /// - Parameter place: where it begins.
    init(_ run: StateRun, from place: UInt64, _ database: Database) throws {
        self.run = run
        statement = try database.makeStatement(sql: StateReader.query)
        next = run.chunk(from: place)
        try advance()
        while let entry, entry.place < place { try advance() }
    }

    deinit { buffer.deallocate() }

    func advance() throws {
        if let entry { offset += entry.raw.count }
        if offset >= length {
            guard next < run.starts.count else {
                entry = nil
                return
            }
            try load()
        }
        entry = StateEntry(UnsafeRawBufferPointer(rebasing: buffer[..<length]), at: offset)
        guard entry != nil else { throw StateReader.damaged(run) }
    }

    private func load() throws {
        let rows = try Row.fetchCursor(statement, arguments: [run.firstChunk + Int64(next)])
        guard let row = try rows.next() else { throw StateReader.damaged(run) }
        try row.withUnsafeData(atIndex: 0) { data in
            let id = run.firstChunk + Int64(next)
            guard let data, data.withUnsafeBytes({ StateChunk.isWhole($0, id: id) }) else {
                throw StateReader.damaged(run)
            }
            if data.count > buffer.count {
                buffer.deallocate()
                buffer = .allocate(byteCount: data.count, alignment: 8)
            }
            data.copyBytes(to: buffer)
            length = data.count
        }
        offset = StateChunk.headerBytes
        next += 1
    }
}

/// Several runs as one, in order: of each key what the newest says.
struct StateMerge {
    /// The newest first.
    private let cursors: [StateCursor]

    /// - Parameter runs: the oldest first.
    init(_ runs: [StateRun], from place: UInt64 = 0, _ database: Database) throws {
        cursors = try runs.reversed().map { try StateCursor($0, from: place, database) }
    }

    /// The next entry, removed ones too; nil at the end. Good until `advance`.
    var entry: StateEntry? {
        var least: StateEntry?
        for cursor in cursors {
            guard let entry = cursor.entry else { continue }
            if let found = least, StateEntry.order(entry.mark, found) >= 0 { continue }
            least = entry
        }
        return least
    }

    /// Past an entry that was the next, in every run that has its key.
    func advance(past entry: StateEntry) throws {
        // The entry's own cursor goes last: its bytes are compared until then.
        var own: StateCursor?
        for cursor in cursors {
            guard let other = cursor.entry, StateEntry.order(entry.mark, other) == 0 else { continue }
            if other.raw.baseAddress == entry.raw.baseAddress { own = cursor } else { try cursor.advance() }
        }
        try own?.advance()
    }

    /// All entries that are left.
    func forEach(_ body: (StateEntry) throws -> Void) throws {
        while let entry {
            try body(entry)
            try advance(past: entry)
        }
    }

    /// A delta and the runs before it as one new run, in the transaction that is open.
    /// - Parameter dropsRemoved: nothing older is left that a removed key would have to hide.
    static func write(
        _ delta: StateDelta, over runs: [StateRun], dropsRemoved: Bool, _ database: Database
    ) throws -> StateRun? {
        let merge = try StateMerge(runs, database)
        var writer = try StateRunWriter(database, store: delta.store)
        func take(_ entry: StateEntry) throws {
            if entry.value != nil || !dropsRemoved { try writer.append(entry) }
        }
        try delta.forEachInOrder { (entry) throws -> Void in
            while let other = merge.entry {
                let order = StateEntry.order(other.mark, entry)
                if order < 0 { try take(other) }
                if order <= 0 { try merge.advance(past: other) }
                if order >= 0 { break }
            }
            try take(entry)
        }
        try merge.forEach(take)
        return try writer.finish()
    }
}
