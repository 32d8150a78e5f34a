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
        for (name, texts) in table.columns { columns[name] = .array(values(texts)) }
        return .object(columns)
    }

    /// Numbers where all of a column are written as JSON writes them (so `007` stays a text), else texts.
    private static func values(_ texts: [String]) -> [JSON] {
        var numbers: [JSON] = []
        numbers.reserveCapacity(texts.count)
        for text in texts {
            guard !text.isEmpty else {
                numbers.append(.null)
                continue
            }
            switch try? JSON(parsing: [UInt8](text.utf8)) {
            case .int(let number)?: numbers.append(.int(number))
            case .double(let number)?: numbers.append(.double(number))
            default: return texts.map { $0.isEmpty ? .null : .string($0) }
            }
        }
        return numbers
    }

    private static func lines(_ path: String) throws -> JSON {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw NodeError("not-found", "there is no file '\(path)'")
        }
        var names: [String: Int] = [:]
        var columns: [[JSON]] = []
        var count = 0
        for (number, line) in data.split(separator: 0x0A).enumerated() {
            guard let object = (try? JSON(parsing: [UInt8](line)))?.object else {
                throw NodeError("bad-entities", "line \(number + 1) of '\(path)' is no JSON object")
            }
            for (name, value) in object {
                let place = names[name] ?? columns.count
                if place == columns.count {
                    names[name] = place
                    columns.append([])
                }
                columns[place] += Array(repeating: .null, count: count - columns[place].count)
                columns[place].append(value)
            }
            count += 1
        }
        return .object(
            names.mapValues { place in
                .array(columns[place] + Array(repeating: .null, count: count - columns[place].count))
            })
    }
}
