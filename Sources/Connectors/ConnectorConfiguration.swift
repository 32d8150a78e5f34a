import Base
import Foundation

package enum ConnectorsModule {}
/// Errors of connectors.
package typealias ConnectorsError = Failure<ConnectorsModule>

/// A connector as declared: Kafka Connect's JSON shape, every value a string.
package struct ConnectorConfiguration: Sendable {
    package let name: String
    package let values: [String: String]
    package let place: String

    package init(file: String) throws(ConnectorsError) {
        guard let data = FileManager.default.contents(atPath: file) else {
            throw ConnectorsError("no-connector", "the connector file '\(file)' cannot be read")
        }
        try self.init([UInt8](data), place: file)
    }

    package init(_ bytes: [UInt8], place: String) throws(ConnectorsError) {
        let json: JSON
        do {
            json = try JSON(parsing: bytes)
        } catch {
            throw ConnectorsError("bad-connector", "\(place): \(error.message)")
        }
        guard let name = json["name"]?.string, let config = json["config"]?.object else {
            throw ConnectorsError("bad-connector", "\(place): 'name' or 'config' is missing")
        }
        var values: [String: String] = [:]
        for (key, value) in config {
            guard let text = value.string else {
                throw ConnectorsError(
                    "bad-connector", "\(place): the value of '\(key)' must be a string, as in Kafka Connect")
            }
            let expanded = ConnectorConfiguration.expand(text)
            if let start = expanded.range(of: "${") {
                let name = expanded[start.upperBound...].prefix { $0 != "}" }
                throw ConnectorsError(
                    "bad-connector",
                    "\(place): '\(key)' uses ${\(name)}, which is not set in the environment; export it first")
            }
            values[key] = expanded
        }
        self.name = name
        self.values = values
        self.place = place
    }

    /// Replaces `${NAME}` by the environment's value, so that no path or secret need stand in the file.
    private static func expand(_ text: String) -> String {
        var result = text
        for (name, value) in ProcessInfo.processInfo.environment where result.contains("${\(name)}") {
            result = result.replacingOccurrences(of: "${\(name)}", with: value)
        }
        return result
    }

    package func string(_ key: String) throws(ConnectorsError) -> String {
        guard let value = values[key], !value.isEmpty else {
            throw ConnectorsError("bad-connector", "\(place): '\(key)' is missing")
        }
        return value
    }

    package func list(_ key: String) throws(ConnectorsError) -> [String] {
        try string(key).split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
    }
}

extension ConnectorConfiguration {
    private init(name: String, values: [String: String], place: String) {
        self.name = name
        self.values = values
        self.place = place
    }

    /// The same connector with one value set.
    package func with(_ key: String, _ value: String) -> ConnectorConfiguration {
        var values = values
        values[key] = value
        return ConnectorConfiguration(name: name, values: values, place: place)
    }
}
