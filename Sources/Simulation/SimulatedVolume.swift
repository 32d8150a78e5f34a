import Base
import EventLog

/// A disk made of memory and a seed. It remembers what was synced and what was not, and when the power goes it keeps of
/// the latter what a real disk might: any sectors of any write, in any order, and any of the changed directory entries.
package final class SimulatedVolume: LogVolume {
    /// The unit that is written as a whole or not at all.
    static let sector = 512

    /// A bug put in on purpose: the simulation is worth something only if it finds these.
    package enum Canary: String, CaseIterable, Sendable {
        /// Syncs of files do nothing.
        case forgetsSync = "forgets-sync"
        /// Syncs of directories do nothing.
        case forgetsDirectorySync = "forgets-directory-sync"
        /// Every hundredth read gives a byte that was never written.
        case liesOnRead = "lies-on-read"
    }

    /// How often something fails, in operations of a thousand.
    package struct Faults: Sendable {
        package var write = 0
        package var read = 0
        package var sync = 0
        package var full = 0
        package static let none = Faults()
    }

    struct Inode {
        var durable: [UInt8] = []
        var current: [UInt8] = []
        /// Since the last sync, in order.
        var pending: [Change] = []
    }

    enum Change {
        case write(offset: Int, bytes: [UInt8])
        case size(Int)

        func apply(to bytes: inout [UInt8]) {
            switch self {
            case .size(let size): SimulatedVolume.resize(&bytes, to: size)
            case .write(let offset, let content):
                if bytes.count < offset + content.count { SimulatedVolume.resize(&bytes, to: offset + content.count) }
                bytes.replaceSubrange(offset..<offset + content.count, with: content)
            }
        }
    }

    /// A directory entry that was changed and not synced yet; inode of nil: removed.
    struct EntryChange {
        let removed: String?
        let added: (name: String, inode: Int)?
        var names: [String] { [removed, added?.name].compactMap { $0 } }
    }

    struct State {
        var random: SeededRandom
        var inodes: [Int: Inode] = [:]
        var nextInode = 0
        var entries: [String: Int] = [:]
        var durableEntries: [String: Int] = [:]
        var pendingEntries: [EntryChange] = []
        var faults = Faults.none
        var operations = 0
        /// The operation at which the power goes.
        var crashAt: Int?
        var isDown = false
        var reads = 0
        /// Files with a sector that the disk gives no bytes of any more.
        var spoilt: Set<Int> = []
        /// Open handles of an earlier power-up are dead.
        var generation = 0
    }

    package let path = "simulated"
    package let canary: Canary?
    let state: Monitor<State>

    package init(seed: UInt64, canary: Canary? = nil) {
        self.canary = canary
        state = Monitor(State(random: SeededRandom(seed: seed)))
    }

    static func down() -> EventLogError { EventLogError("power-failure", "the power is gone", fault: .world) }

    private static func name(_ directory: String, holds path: String) -> Bool {
        directory.isEmpty ? !path.contains("/") : path.hasPrefix(directory + "/")
    }

    /// Every operation passes here: it may be the last one before the power goes.
    func step(_ state: inout State) throws(EventLogError) {
        guard !state.isDown else { throw SimulatedVolume.down() }
        state.operations += 1
        if let at = state.crashAt, state.operations >= at {
            state.isDown = true
            throw SimulatedVolume.down()
        }
    }

    func chance(_ share: Int, _ state: inout State) -> Bool {
        share > 0 && Int.random(in: 0..<1000, using: &state.random) < share
    }

    // MARK: LogVolume

    package func list() throws(EventLogError) -> [String] {
        try state.withLock { state throws(EventLogError) in
            try step(&state)
            return state.entries.keys.sorted()
        }
    }

    package func open(_ path: String, _ mode: LogFileMode) throws(EventLogError) -> any LogFile {
        try state.withLock { state throws(EventLogError) in
            try step(&state)
            if let known = state.entries[path] {
                guard mode != .createNew else {
                    throw EventLogError("open-failed", "\(path) is there already", fault: .world)
                }
                return SimulatedFile(path: path, inode: known, volume: self, generation: state.generation)
            }
            guard mode == .create || mode == .createNew else {
                throw EventLogError("no-such-file", "there is no \(path)", fault: .world)
            }
            if chance(state.faults.full, &state) {
                throw EventLogError("disk-full", "no space for \(path)", fault: .world)
            }
            state.nextInode += 1
            state.inodes[state.nextInode] = Inode()
            state.entries[path] = state.nextInode
            state.pendingEntries.append(EntryChange(removed: nil, added: (path, state.nextInode)))
            return SimulatedFile(path: path, inode: state.nextInode, volume: self, generation: state.generation)
        }
    }

    package func remove(_ path: String) throws(EventLogError) {
        try state.withLock { state throws(EventLogError) in
            try step(&state)
            guard state.entries.removeValue(forKey: path) != nil else { return }
            state.pendingEntries.append(EntryChange(removed: path, added: nil))
        }
    }

    package func rename(_ from: String, _ to: String) throws(EventLogError) {
        try state.withLock { state throws(EventLogError) in
            try step(&state)
            guard let inode = state.entries.removeValue(forKey: from) else {
                throw EventLogError("write-failed", "there is no \(from)", fault: .world)
            }
            state.entries[to] = inode
            state.pendingEntries.append(EntryChange(removed: from, added: (to, inode)))
        }
    }

    package func makeDirectory(_ path: String) throws(EventLogError) {}

    package func syncDirectory(_ path: String) throws(EventLogError) {
        try state.withLock { state throws(EventLogError) in
            try step(&state)
            if chance(state.faults.sync, &state) {
                throw EventLogError("sync-failed", "fsync of \(path) failed", fault: .world)
            }
            guard canary != .forgetsDirectorySync else { return }
            var rest: [EntryChange] = []
            for change in state.pendingEntries {
                if change.names.contains(where: { SimulatedVolume.name(path, holds: $0) }) {
                    SimulatedVolume.apply(change, &state)
                } else {
                    rest.append(change)
                }
            }
            state.pendingEntries = rest
        }
    }

    package func lock() throws(EventLogError) -> any Sendable { 0 }

    private static func apply(_ change: EntryChange, _ state: inout State) {
        if let removed = change.removed { state.durableEntries[removed] = nil }
        if let (name, inode) = change.added { state.durableEntries[name] = inode }
    }

    // MARK: What happens to it

    /// The power goes, and comes back: unsynced changes have happened in part.
    package func crash() {
        state.withLock { state in
            // One crash loses almost everything, another almost nothing.
            let kept = [0, 10, 50, 90, 100][Int.random(in: 0..<5, using: &state.random)]
            for number in state.inodes.keys.sorted() {
                guard var inode = state.inodes[number], !inode.pending.isEmpty else { continue }
                inode.durable = SimulatedVolume.survivors(inode, kept: kept, &state.random)
                inode.current = inode.durable
                inode.pending = []
                state.inodes[number] = inode
            }
            for change in state.pendingEntries where Int.random(in: 0..<100, using: &state.random) < kept {
                SimulatedVolume.apply(change, &state)
            }
            state.pendingEntries = []
            state.entries = state.durableEntries
            state.crashAt = nil
            state.isDown = false
            state.generation += 1
        }
    }

    private static func survivors(_ inode: Inode, kept: Int, _ random: inout SeededRandom) -> [UInt8] {
        var bytes = inode.durable
        for change in inode.pending {
            switch change {
            case .size(let size):
                guard Int.random(in: 0..<100, using: &random) < kept else { continue }
                resize(&bytes, to: size)
            case .write(let offset, let content):
                var at = 0
                while at < content.count {
                    let end = min(content.count, (offset + at) / sector * sector + sector - offset)
                    if Int.random(in: 0..<100, using: &random) < kept {
                        if bytes.count < offset + end { resize(&bytes, to: offset + end) }
                        bytes.replaceSubrange(offset + at..<offset + end, with: content[at..<end])
                    }
                    at = end
                }
            }
        }
        return bytes
    }

    static func resize(_ bytes: inout [UInt8], to size: Int) {
        if size < bytes.count {
            bytes.removeLast(bytes.count - size)
        } else {
            bytes.append(contentsOf: repeatElement(0, count: size - bytes.count))
        }
    }

    /// No read of a file succeeds from now on; what takes its place is another file.
    package func spoil(_ path: String) {
        state.withLock { state in
            if let inode = state.entries[path] { state.spoilt.insert(inode) }
        }
    }

    package func heal(_ path: String) {
        state.withLock { state in
            if let inode = state.entries[path] { state.spoilt.remove(inode) }
        }
    }

    /// Flips a bit of a file at rest, cuts it or takes it away; gives its name.
    package func rot() -> String? {
        state.withLock { state in
            let names = state.entries.keys.sorted().filter { name in
                guard let inode = state.entries[name].flatMap({ state.inodes[$0] }) else { return false }
                return !inode.current.isEmpty
            }
            guard let name = names.randomElement(using: &state.random), let number = state.entries[name],
                var inode = state.inodes[number]
            else { return nil }
            let at = Int.random(in: 0..<inode.current.count, using: &state.random)
            switch Int.random(in: 0..<6, using: &state.random) {
            case 0:
                state.entries[name] = nil
                state.durableEntries[name] = nil
                return name
            case 1:
                SimulatedVolume.resize(&inode.current, to: at)
                inode.durable = inode.current
                state.inodes[number] = inode
                return name
            default: break
            }
            let bit: UInt8 = 1 << UInt8.random(in: 0..<8, using: &state.random)
            inode.current[at] ^= bit

            if at < inode.durable.count { inode.durable[at] = inode.current[at] }
            state.inodes[number] = inode
            return name
        }
    }

    package func set(_ faults: Faults) { state.withLock { $0.faults = faults } }

    /// The power goes within so many operations; nil for not at all.
    package func crash(within operations: Int?) {
        state.withLock { state in
            guard let operations else {
                state.crashAt = nil
                return
            }
            state.crashAt = state.operations + 1 + Int.random(in: 0..<operations, using: &state.random)
        }
    }

    package var isDown: Bool { state.withLock { $0.isDown } }
}

/// A file of a simulated volume.
final class SimulatedFile: LogFile {
    let path: String
    private let inode: Int
    private let volume: SimulatedVolume
    private let generation: Int

    init(path: String, inode: Int, volume: SimulatedVolume, generation: Int) {
        self.path = path
        self.inode = inode
        self.volume = volume
        self.generation = generation
    }

    private func with<R>(
        _ body: (inout SimulatedVolume.State, inout SimulatedVolume.Inode) throws(EventLogError) -> R
    ) throws(EventLogError) -> R {
        try volume.state.withLock { state throws(EventLogError) in
            guard state.generation == generation else { throw SimulatedVolume.down() }
            try volume.step(&state)
            guard let place = state.inodes.index(forKey: inode) else { throw SimulatedVolume.down() }
            // Taken out, or every change would copy the file. No body looks at inodes.
            var file = SimulatedVolume.Inode()
            swap(&file, &state.inodes.values[place])
            defer { swap(&file, &state.inodes.values[place]) }
            return try body(&state, &file)
        }
    }

    var size: Int64 { volume.state.withLock { Int64($0.inodes[inode]?.current.count ?? 0) } }

    func read(at offset: Int64, count: Int) throws(EventLogError) -> [UInt8] {
        try with { state, file throws(EventLogError) in
            if state.spoilt.contains(inode) || volume.chance(state.faults.read, &state) {
                throw EventLogError("read-failed", "EIO on \(path)", fault: .world)
            }
            let from = min(Int(offset), file.current.count)
            var bytes = Array(file.current[from..<min(from + count, file.current.count)])
            state.reads += 1
            if volume.canary == .liesOnRead, state.reads % 100 == 0, !bytes.isEmpty { bytes[bytes.count / 2] ^= 1 }
            return bytes
        }
    }

    func write(_ bytes: [UInt8], at offset: Int64) throws(EventLogError) {
        let offset = Int(offset)
        func put(_ part: [UInt8], _ file: inout SimulatedVolume.Inode) {
            guard !part.isEmpty else { return }
            if file.current.count < offset + part.count {
                SimulatedVolume.resize(&file.current, to: offset + part.count)
            }
            file.current.replaceSubrange(offset..<offset + part.count, with: part)
            file.pending.append(.write(offset: offset, bytes: part))
        }
        do throws(EventLogError) {
            try with { state, file throws(EventLogError) in
                if volume.chance(state.faults.write, &state) {
                    throw EventLogError("write-failed", "EIO on \(path)", fault: .world)
                }
                if volume.chance(state.faults.full, &state) {
                    // A short write, and then no space for the rest.
                    put(Array(bytes.prefix(Int.random(in: 0...bytes.count, using: &state.random))), &file)
                    throw EventLogError("disk-full", "no space on \(path)", fault: .world)
                }
                put(bytes, &file)
            }
        } catch {
            if error.code == "power-failure" {
                // The power went in the middle of this write.
                volume.state.withLock { state in
                    guard state.generation == generation, var file = state.inodes[inode] else { return }
                    put(bytes, &file)
                    state.inodes[inode] = file
                }
            }
            throw error
        }
    }

    func sync() throws(EventLogError) {
        try with { state, file throws(EventLogError) in
            if volume.chance(state.faults.sync, &state) {
                // Pages that could not be written are marked clean all the same: some of them never reach the disk.
                for change in file.pending where Bool.random(using: &state.random) { change.apply(to: &file.durable) }
                file.pending = []
                throw EventLogError("sync-failed", "EIO on \(path)", fault: .world)
            }
            guard volume.canary != .forgetsSync else { return }
            // What a failed sync lost does not come back by syncing again: only what is pending is written.
            for change in file.pending { change.apply(to: &file.durable) }
            file.pending = []
        }
    }

    func truncate(to size: Int64) throws(EventLogError) {
        try with { state, file throws(EventLogError) in
            SimulatedVolume.resize(&file.current, to: Int(size))
            file.pending.append(.size(Int(size)))
        }
    }

    func reserve(_ range: Range<Int64>) -> Bool {
        // A real disk would reserve megabytes; here a few sectors show the same zeros behind the end.
        let end = min(Int(range.upperBound), Int(range.lowerBound) + 4 * SimulatedVolume.sector)
        do throws(EventLogError) {
            return try with { state, file throws(EventLogError) in
                guard !volume.chance(100, &state), end > file.current.count else { return false }
                SimulatedVolume.resize(&file.current, to: end)
                file.pending.append(.size(end))
                return true
            }
        } catch {
            return false
        }
    }
}
