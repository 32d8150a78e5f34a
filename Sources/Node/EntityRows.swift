import Base
import Connectors
import Foundation

/// Rows in a file: CSV with a header, or one JSON object a line.
package enum EntityRows {
    /// Columns with their values; an empty field of CSV is missing.
    package static func read(_ path: String) throws -> JSON {
        guard path.hasSuffix(".csv") else { return try lines(path) }
        let table = try CSVTable(path: path)
        if let damage = table.damaged.first {
            throw NodeError("bad-entities", "line \(damage.line) of '\(path)': \(damage.reason)")
        }
        var columns: [String: JSON] = [:]
        for (name, texts) in table.columns { columns[name] = .array(texts.map { $0.isEmpty ? .null : .string($0) }) }
        return .object(columns)
    }

    private static func lines(_ path: String) throws -> JSON {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw NodeError("not-found", "there is no file '\(path)'")
        }
        var columns: [String: [JSON]] = [:]
        var count = 0
        for (number, line) in data.split(separator: 0x0A).enumerated() {
            guard let object = (try? JSON(parsing: [UInt8](line)))?.object else {
                throw NodeError("bad-entities", "line \(number + 1) of '\(path)' is no JSON object")
            }
            for name in object.keys where columns[name] == nil {
                columns[name] = Array(repeating: .null, count: count)
            }
            count += 1
            for name in columns.keys { columns[name]?.append(object[name] ?? .null) }
        }
        return .object(columns.mapValues { .array($0) })
    }
}
