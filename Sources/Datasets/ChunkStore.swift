import Base
import EventLog
import RecordFormat

/// Chunks by their digest, each kept once however many datasets and files it stands in. They are packed into files of up to
/// `packSize` bytes (docs/formats/dataset.md); what is in them never changes.
package final class ChunkStore: Sendable {
    struct Place: Sendable, Equatable {
        let pack: Int
        /// Of the stored bytes, behind the entry's header.
        let offset: Int64
        let storedCount: Int
        let count: Int
        let isCompressed: Bool
    }

    struct State: Sendable {
        var index: [Digest: Place] = [:]
        /// Chunks that are not what their digest says; when they come again they are written again.
        var damaged: [Digest: Place] = [:]
        var pack = 0
        var file: (any LogFile)?
        var end: Int64 = 0
        var failure: DatasetsError?
        /// Bytes that came, and bytes that were new and written, since the store was opened.
        var offered: Int64 = 0
        var written: Int64 = 0
        /// Who is at making a dataset, and what was kept or found since the first of them began.
        var holders = 0
        var touched: Set<Digest> = []
    }

    /// Bytes of one pack, from where on the next is begun.
    package static let packSize: Int64 = 64 << 20
    static let magic: [UInt8] = [UInt8]("HRPACK01".utf8)
    /// storedCount u32, count u32, encoding u8 (0 as it is, 1 LZ4 frame), digest.
    static let entryHeader = 4 + 4 + 1 + Digest.byteCount

    let volume: any LogVolume
    /// Guards all of it; a chunk is written under the lock.
    let state = Monitor(State())
    private let packSize: Int64

    /// Opens the packs of a folder, or begins the first. Behind a torn end of the newest nothing is written any more: it may be
    /// rot as well, and what stands behind it whole.
    package init(_ volume: any LogVolume, packSize: Int64 = ChunkStore.packSize) throws(DatasetsError) {
        self.volume = volume
        self.packSize = packSize
        do {
            try volume.makeDirectory("")
            let packs = try volume.list().compactMap { name in
                name.hasSuffix(".pack") ? Int(name.dropLast(5)) : nil
            }.sorted()
            var opened = State()
            for (number, pack) in packs.enumerated() { try read(pack, isLast: number == packs.count - 1, &opened) }
            state.withLock { $0 = opened }
        } catch {
            throw ChunkStore.failure("cannot be opened", volume, error)
        }
    }

    static func failure(_ what: String, _ volume: any LogVolume, _ cause: any Error) -> DatasetsError {
        if let known = cause as? DatasetsError { return known }
        return DatasetsError("chunks-unreadable", "the chunks in \(volume.path) \(what)", cause: cause, fault: .world)
    }

    static func name(_ pack: Int) -> String {
        let digits = String(pack)
        return String(repeating: "0", count: max(0, 8 - digits.count)) + digits + ".pack"
    }

    static func indexName(_ pack: Int) -> String { name(pack).dropLast(5) + ".index" }

    package var statistics: (chunks: Int, packs: Int, offered: Int64, written: Int64) {
        state.withLock { ($0.index.count, $0.file == nil ? $0.pack : $0.pack + 1, $0.offered, $0.written) }
    }

    package func contains(_ digest: Digest) -> Bool { state.withLock { $0.index[digest] != nil } }

    /// Keeps a chunk; its digest is its name. It is on disk after the next `sync`.
    @discardableResult
    package func put(_ bytes: ArraySlice<UInt8>) throws(DatasetsError) -> Digest {
        let result = bytes.withUnsafeBytes { raw in
            Result { () throws(DatasetsError) in try put(raw) }
        }
        return try result.get()
    }

    /// Keeps a chunk; its digest is its name. It is on disk after the next `sync`.
    @discardableResult
    package func put(_ bytes: UnsafeRawBufferPointer) throws(DatasetsError) -> Digest {
        let digest = Digest.of(bytes)
        try state.withLock { (state) throws(DatasetsError) in
            if let failure = state.failure { throw failure }
            state.offered += Int64(bytes.count)
            if state.holders > 0 { state.touched.insert(digest) }
            guard state.index[digest] == nil else { return }
            try append(digest, bytes, &state)
        }
        return digest
    }

    /// Writes a chunk behind all others, unless it stands elsewhere by now.
    func move(_ digest: Digest, _ bytes: [UInt8], from place: Place) throws(DatasetsError) {
        let result = bytes.withUnsafeBytes { raw in
            Result { () throws(DatasetsError) in
                try state.withLock { (state) throws(DatasetsError) in
                    guard state.index[digest] == place else { return }
                    try append(digest, raw, &state)
                }
            }
        }
        try result.get()
    }

    private func append(
        _ digest: Digest, _ bytes: UnsafeRawBufferPointer, _ state: inout State
    ) throws(DatasetsError) {
        if let failure = state.failure { throw failure }
        let packed = LZ4Frame.compress(bytes).flatMap { $0.count < bytes.count ? $0 : nil }
        var entry = ByteWriter(capacity: ChunkStore.entryHeader + (packed?.count ?? bytes.count))
        entry.append(little: UInt32(packed?.count ?? bytes.count))
        entry.append(little: UInt32(bytes.count))
        entry.append(packed == nil ? 0 : 1 as UInt8)
        entry.append(digest.bytes)
        if let packed { entry.append(packed) } else { entry.append(bytes) }
        do {
            let file = try current(&state)
            try file.write(entry.bytes, at: state.end)
        } catch {
            // What stands in the file is not known any more.
            state.failure = ChunkStore.failure("cannot be written", volume, error)
            throw ChunkStore.failure("cannot be written", volume, error)
        }
        state.index[digest] = Place(
            pack: state.pack, offset: state.end + Int64(ChunkStore.entryHeader),
            storedCount: packed?.count ?? bytes.count, count: bytes.count, isCompressed: packed != nil)
        state.end += Int64(entry.count)
        state.written += Int64(entry.count)
    }

    private func current(_ state: inout State) throws(EventLogError) -> any LogFile {
        if let file = state.file, state.end < packSize { return file }
        if let file = state.file {
            try file.sync()
            try writeIndex(of: state.pack, state)
            state.pack += 1
        }
        let file = try volume.open(ChunkStore.name(state.pack), .createNew)
        try file.write(ChunkStore.magic, at: 0)
        try file.sync()
        try volume.syncDirectory("")
        state.file = file
        state.end = Int64(ChunkStore.magic.count)
        return file
    }

    /// Everything put so far is on disk when this returns.
    package func sync() throws(DatasetsError) {
        try state.withLock { (state) throws(DatasetsError) in
            if let failure = state.failure { throw failure }
            do { try state.file?.sync() } catch {
                state.failure = ChunkStore.failure("cannot be written", volume, error)
                throw ChunkStore.failure("cannot be written", volume, error)
            }
        }
    }

    /// The bytes of a chunk, checked against its digest.
    package func get(_ digest: Digest) throws(DatasetsError) -> [UInt8] {
        guard let place = state.withLock({ $0.index[digest] ?? $0.damaged[digest] }) else {
            throw DatasetsError("no-chunk", "the chunk \(digest.hex) is not in \(volume.path)", fault: .world)
        }
        let bytes: [UInt8]
        do {
            bytes = try content(place, try volume.open(ChunkStore.name(place.pack), .read))
        } catch let error where (error as? RecordFormatError) != nil {
            // Compressed bytes that are none any more.
            bytes = []
        } catch {
            // Its pack may have been swept away since, and the chunk stand elsewhere.
            if let now = state.withLock({ $0.index[digest] }), now != place { return try get(digest) }
            throw ChunkStore.failure(
                "cannot be read at \(ChunkStore.name(place.pack)) byte \(place.offset)", volume, error)
        }
        guard Digest.of(bytes) == digest else {
            state.withLock { state in
                // It may have been written again meanwhile.
                guard let now = state.index[digest], now.pack == place.pack, now.offset == place.offset else { return }
                state.index[digest] = nil
                state.damaged[digest] = place
            }
            throw DatasetsError(
                "rot",
                "the chunk \(digest.hex) in \(ChunkStore.name(place.pack)) at byte \(place.offset) is damaged: make the dataset again from the log, or restore a backup",
                fault: .world)
        }
        return bytes
    }

    /// What stands there, unchecked.
    func content(_ place: Place, _ file: any LogFile) throws -> [UInt8] {
        let stored = try file.read(at: place.offset, count: place.storedCount)
        guard place.isCompressed else { return stored }
        return try stored.withUnsafeBytes { try LZ4Frame.decompress($0, limit: place.count) }
    }
}
