import Base
import Foundation

/// Files as members of a dataset: each is kept in chunks, and the dataset's rows say which file is made of what.
package enum DatasetFiles {
    package static let path = "path"
    /// Files of one version.
    private static let fileLimit = 1_000_000
    private static let blockSize = 4 << 20

    /// Reads a folder's files, in the order of their paths. Links are left out and named.
    package static func read(_ directory: String, _ store: ChunkStore) throws -> (DatasetTable, notices: [String]) {
        var isDirectory: ObjCBool = false
        guard FileManager.default.fileExists(atPath: directory, isDirectory: &isDirectory), isDirectory.boolValue,
            let walker = FileManager.default.enumerator(atPath: directory)
        else { throw DatasetsError("not-found", "there is no folder '\(directory)'") }
        var files: [String] = []
        var links: [String] = []
        while let name = walker.nextObject() as? String {
            switch try FileManager.default.attributesOfItem(atPath: directory + "/" + name)[.type] as? FileAttributeType
            {
            case .typeRegular?: files.append(name)
            case .typeDirectory?: continue
            default: links.append(name)
            }
            guard files.count <= fileLimit else {
                throw DatasetsError("too-many-files", "a dataset may have \(fileLimit) files")
            }
        }
        files.sort { $0.utf8.lexicographicallyPrecedes($1.utf8) }
        var sizes: [Int64] = []
        var digests: [String] = []
        var recipes: [String] = []
        for name in files {
            let recipe = try keep(directory + "/" + name, store)
            sizes.append(recipe.byteCount)
            digests.append(recipe.root.hex)
            recipes.append(Digest.of(recipe.encoded).hex)
        }
        let table = DatasetTable(columns: [
            DatasetColumn(name: path, values: .texts(files)), DatasetColumn(name: "bytes", values: .integers(sizes)),
            DatasetColumn(name: "digest", values: .texts(digests)),
            DatasetColumn(name: "recipe", values: .texts(recipes)),
        ])
        var notices =
            links.isEmpty
            ? [] : ["left out, being no regular files: \(links.sorted().prefix(5).joined(separator: ", "))"]
        if files.isEmpty { notices.append("there are no files in '\(directory)'") }
        return (table, notices)
    }

    private static func keep(_ path: String, _ store: ChunkStore) throws -> ChunkRecipe {
        guard let file = FileHandle(forReadingAtPath: path) else {
            throw DatasetsError("read-failed", "'\(path)' cannot be read", fault: .world)
        }
        defer { try? file.close() }
        var writer = ChunkWriter(store)
        while let block = try file.read(upToCount: blockSize), !block.isEmpty { try writer.append([UInt8](block)) }
        let recipe = try writer.finish()
        try store.put(recipe.encoded[...])
        return recipe
    }

    private static func recipe(_ row: Int, _ table: DatasetTable, _ store: ChunkStore) throws -> ChunkRecipe {
        guard let digest = table["recipe"]?.label(row).flatMap({ Digest(hex: $0) }) else {
            throw DatasetsError("bad-rows", "a file of the dataset has no list of chunks", fault: .world)
        }
        let recipe = try ChunkRecipe(try store.get(digest))
        guard recipe.root.hex == table["digest"]?.label(row) else {
            throw DatasetsError(
                "rot", "the chunks of '\(table[path]?.label(row) ?? "")' are another file's", fault: .world)
        }
        return recipe
    }

    /// What every file is made of.
    static func recipes(_ table: DatasetTable, _ store: ChunkStore) throws -> [ChunkRecipe] {
        try (0..<table.count).map { try recipe($0, table, store) }
    }

    /// Reads every chunk of every file.
    package static func verify(_ table: DatasetTable, _ store: ChunkStore) throws {
        for row in 0..<table.count { try store.read(try recipe(row, table, store)) { _ in } }
    }

    /// Writes the files into a new folder; what is written so far is left behind when one is damaged.
    package static func write(_ table: DatasetTable, _ store: ChunkStore, to directory: String) throws -> Int64 {
        var bytes: Int64 = 0
        for row in 0..<table.count {
            let name = table[path]?.label(row) ?? ""
            let parts = name.split(separator: "/", omittingEmptySubsequences: false)
            guard !name.isEmpty, !parts.contains(".."), !parts.contains("") else {
                throw DatasetsError("bad-rows", "'\(name)' is no path inside a folder", fault: .world)
            }
            let target = directory + "/" + name
            try FileManager.default.createDirectory(
                atPath: (target as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
            guard FileManager.default.createFile(atPath: target, contents: nil),
                let file = FileHandle(forWritingAtPath: target)
            else { throw DatasetsError("write-failed", "'\(target)' cannot be written", fault: .world) }
            defer { try? file.close() }
            try store.read(try recipe(row, table, store)) { chunk in
                try file.write(contentsOf: chunk)
                bytes += Int64(chunk.count)
            }
        }
        return bytes
    }
}
