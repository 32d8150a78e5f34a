import Base
import EventLog
import RecordFormat

extension ChunkStore {
    /// Where a pack's chunks stand, so that a sealed one need not be gone through: count, then digest, offset, storedCount,
    /// count and encoding of each; SHA-256 of all that at the end.
    func writeIndex(of pack: Int, _ state: State) throws(EventLogError) {
        var writer = ByteWriter()
        let entries = state.index.filter { $0.value.pack == pack }.sorted { $0.value.offset < $1.value.offset }
        writer.append(little: UInt32(entries.count))
        for (digest, place) in entries {
            writer.append(digest.bytes)
            writer.append(little: place.offset)
            writer.append(little: UInt32(place.storedCount))
            writer.append(little: UInt32(place.count))
            writer.append(place.isCompressed ? 1 : 0 as UInt8)
        }
        try volume.replace(
            ChunkStore.indexName(pack), with: writer.bytes + Digest.of(writer.bytes).bytes, durable: false)
    }

    func read(_ pack: Int, isLast: Bool, _ state: inout State) throws {
        if !isLast, try readIndex(pack, &state) { return }
        let file = try volume.open(ChunkStore.name(pack), isLast ? .write : .read)
        let start = Int64(ChunkStore.magic.count)
        guard try file.read(at: 0, count: ChunkStore.magic.count) == ChunkStore.magic else {
            // A crash right behind its creation leaves no more than its first bytes.
            guard isLast, file.size <= start else {
                throw DatasetsError(
                    "bad-pack", "\(volume.path)/\(ChunkStore.name(pack)) is no pack of chunks", fault: .world)
            }
            try file.write(ChunkStore.magic, at: 0)
            try file.sync()
            (state.pack, state.file, state.end) = (pack, file, start)
            return
        }
        var at = start
        let size = file.size
        var isClean = true
        while at < size {
            let header = try file.read(at: at, count: ChunkStore.entryHeader)
            guard header.count == ChunkStore.entryHeader, let (digest, place) = entry(header, pack, at),
                place.offset + Int64(place.storedCount) <= size
            else {
                isClean = false
                break
            }
            // What has no index was never known to be whole: it was the newest when its writer died.
            if try !isWhole(digest, place, file) {
                isClean = false
                state.damaged[digest] = place
            } else {
                state.index[digest] = place
                state.damaged[digest] = nil
            }
            at = place.offset + Int64(place.storedCount)
        }
        // What is whole here may still be in memory alone: a dataset will name it without writing it again.
        if isLast { try file.sync() }
        guard isLast, isClean else {
            // So that it is gone through once.
            try writeIndex(of: pack, state)
            if isLast { (state.pack, state.file, state.end) = (pack + 1, nil, 0) }
            return
        }
        (state.pack, state.file, state.end) = (pack, file, at)
    }

    private func entry(_ header: [UInt8], _ pack: Int, _ at: Int64) -> (Digest, Place)? {
        header.withUnsafeBytes { raw in
            let stored = Int(UInt32(littleEndian: raw.loadUnaligned(as: UInt32.self)))
            let count = Int(UInt32(littleEndian: raw.loadUnaligned(fromByteOffset: 4, as: UInt32.self)))
            guard raw[8] <= 1, stored > 0 || count == 0, stored <= count,
                let digest = Digest(UnsafeRawBufferPointer(rebasing: raw[9..<ChunkStore.entryHeader]))
            else { return nil }
            return (
                digest,
                Place(
                    pack: pack, offset: at + Int64(ChunkStore.entryHeader), storedCount: stored, count: count,
                    isCompressed: raw[8] == 1)
            )
        }
    }

    private func isWhole(_ digest: Digest, _ place: Place, _ file: any LogFile) throws -> Bool {
        do {
            return Digest.of(try content(place, file)) == digest
        } catch is RecordFormatError {
            // Compressed bytes that are none any more. What cannot be read now is not thereby rot.
            return false
        }
    }

    private func readIndex(_ pack: Int, _ state: inout State) throws -> Bool {
        guard let bytes = volume.contents(ChunkStore.indexName(pack)), bytes.count >= 4 + Digest.byteCount else {
            return false
        }
        let body = Array(bytes.dropLast(Digest.byteCount))
        guard Digest.of(body).bytes == Array(bytes.suffix(Digest.byteCount)) else { return false }
        try body.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            for _ in 0..<(try reader.little(UInt32.self)) {
                guard let digest = Digest(try reader.slice(Digest.byteCount)) else { return }
                let offset: Int64 = try reader.little()
                let stored = Int(try reader.little(UInt32.self))
                let count = Int(try reader.little(UInt32.self))
                state.index[digest] = Place(
                    pack: pack, offset: offset, storedCount: stored, count: count,
                    isCompressed: try reader.byte() == 1)
            }
        }
        return true
    }
}
