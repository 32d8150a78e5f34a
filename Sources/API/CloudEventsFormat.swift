import Base
import Foundation
import HTTP
import RecordFormat

/// CloudEvents 1.0 over HTTP: binary, structured and batch mode in, structured out.
package enum CloudEventsFormat {
    /// One event of a request, or why it is none. The topic is the `topic` query parameter, or the extension `topic`.
    package struct Incoming: Sendable {
        package let topic: String
        package let id: String?
        package let event: Result<NewEvent, APIError>
        /// It said its time itself; else it happened when it came.
        package var isDated = true
    }

    package static func read(_ request: WebRequest, now: Instant) throws(APIError) -> [Incoming] {
        let type =
            (request.header("content-type") ?? "").split(separator: ";").first.map {
                $0.trimmingCharacters(in: .whitespaces).lowercased()
            } ?? ""
        let topic = request.query["topic"]
        switch type {
        case "application/cloudevents+json": return [structured(try json(request.body), topic, now)]
        case "application/cloudevents-batch+json":
            return try batch(try json(request.body), topic, now)
        default: return [binary(request, type, topic, now)]
        }
    }

    static func batch(_ body: JSON, _ topic: String?, _ now: Instant) throws(APIError) -> [Incoming] {
        guard let items = body.array else { throw APIError("bad-batch", "a batch is a JSON array of CloudEvents") }
        guard !items.isEmpty, items.count <= Limits.batchEvents else {
            throw APIError("bad-batch", "a batch has 1 to \(Limits.batchEvents) events, this one has \(items.count)")
        }
        return items.map { structured($0, topic, now) }
    }

    private static func json(_ body: [UInt8]) throws(APIError) -> JSON {
        do {
            return try JSON(parsing: body)
        } catch {
            throw APIError("bad-json", "the body is not JSON: \(error.message)")
        }
    }

    /// Attributes that have a place of their own in an event.
    private static let standard: Set<String> = [
        "id", "source", "type", "specversion", "time", "subject", "topic", "partitionkey", "causationid",
        "correlationid", "datacontenttype",
    ]

    private static func incoming(
        _ topic: String?, _ attributes: [String: String], _ data: [UInt8]?, _ contentType: String?, _ now: Instant
    ) -> Incoming {
        let place = topic ?? attributes["topic"] ?? ""
        func refuse(_ code: String, _ message: String) -> Incoming {
            Incoming(topic: place, id: attributes["id"], event: .failure(APIError(code, message)))
        }
        guard !place.isEmpty else {
            return refuse("no-topic", "name the topic as ?topic= or in the extension attribute 'topic'")
        }
        if let named = attributes["topic"], named != place {
            return refuse("bad-event", "?topic= says '\(place)' and the attribute 'topic' says '\(named)'")
        }
        for name in ["id", "source", "type", "specversion"] where (attributes[name] ?? "").isEmpty {
            return refuse(
                "bad-event",
                "the CloudEvents attribute '\(name)' is missing (in headers as ce-\(name); in the body with Content-Type: application/cloudevents+json)"
            )
        }
        guard attributes["specversion"] == "1.0" else { return refuse("bad-event", "'specversion' must be 1.0") }
        let illegal = attributes.keys.filter { name in
            name.isEmpty || !name.utf8.allSatisfy { ($0 >= 0x61 && $0 <= 0x7A) || ($0 >= 0x30 && $0 <= 0x39) }
        }
        if let name = illegal.min() {
            return refuse("bad-event", "'\(name)' is no attribute name: lower-case letters and digits")
        }
        var time = now
        if let text = attributes["time"] {
            guard let parsed = Instant(text) else {
                return refuse("bad-event", "'time' must be RFC 3339, not '\(text)'")
            }
            time = parsed
        }
        let extensions = attributes.filter { !Self.standard.contains($0.key) }.sorted { $0.key < $1.key }.map {
            (name: "ce_\($0.key)", value: $0.value)
        }
        return Incoming(
            topic: place, id: attributes["id"],
            event: .success(
                NewEvent(
                    id: attributes["id"] ?? "", source: attributes["source"] ?? "", type: attributes["type"] ?? "",
                    time: time,
                    key: (attributes["partitionkey"] ?? attributes["subject"]).map { [UInt8]($0.utf8) },
                    subject: attributes["subject"],
                    contentType: contentType, data: data, causation: attributes["causationid"],
                    correlation: attributes["correlationid"],
                    extensions: extensions)), isDated: attributes["time"] != nil)
    }

    private static func structured(_ item: JSON, _ topic: String?, _ now: Instant) -> Incoming {
        func refuse(_ message: String) -> Incoming {
            Incoming(topic: topic ?? "", id: item["id"]?.string, event: .failure(APIError("bad-event", message)))
        }
        guard let members = item.object else { return refuse("a CloudEvent is a JSON object") }
        var attributes: [String: String] = [:]
        var unfit: [String] = []
        for (name, value) in members where name != "data" && name != "data_base64" {
            switch value {
            case .null: continue
            case .string(let text): attributes[name] = text
            case .int(let number): attributes[name] = String(number)
            case .bool(let flag): attributes[name] = flag ? "true" : "false"
            default: unfit.append(name)
            }
        }
        if let name = unfit.min() {
            return refuse("the attribute '\(name)' must be text, a whole number or a boolean")
        }
        var data = members["data"]?.canonical
        if let encoded = members["data_base64"], encoded != .null {
            guard data == nil else { return refuse("an event has 'data' or 'data_base64', not both") }
            guard let decoded = encoded.string.flatMap({ Data(base64Encoded: $0) }) else {
                return refuse("'data_base64' is not base64")
            }
            data = [UInt8](decoded)
        }
        return incoming(topic, attributes, data, attributes["datacontenttype"] ?? "application/json", now)
    }

    private static func binary(_ request: WebRequest, _ type: String, _ topic: String?, _ now: Instant) -> Incoming {
        var attributes: [String: String] = [:]
        for (name, value) in request.headers(prefix: "ce-") {
            attributes[name] = value.removingPercentEncoding ?? value
        }
        return incoming(
            topic, attributes, request.body.isEmpty ? nil : request.body, type.isEmpty ? "application/json" : type, now)
    }

    /// An event of the log in structured mode, with its position as the extension `position`.
    /// - Parameter content: the event's data, with what was sealed in it opened, and the version that it is in.
    package static func write(
        _ event: StoredEvent, _ content: (data: [UInt8]?, version: Int?), topic: String, partition: Int,
        defaultType: String?
    ) -> JSON {
        var members: [String: JSON] = [:]
        for (name, value) in event.headers {
            if name.hasPrefix("ce_") { members[String(name.dropFirst(3))] = .string(value) }
            if name == EventHeader.contentType { members["datacontenttype"] = .string(value) }
        }
        // What the log itself knows stands above what a producer may have called the same.
        members["specversion"] = "1.0"
        members["time"] = .string(event.time.description)
        members["topic"] = .string(topic)
        if let version = content.version { members["dataversion"] = .string("\(version)") }
        if let key = event.key { members["partitionkey"] = .string(String(decoding: key, as: UTF8.self)) }
        members["position"] = .string("\(topic)/\(partition)@\(event.offset)")
        if members["id"] == nil { members["id"] = .string("\(topic)-\(partition)-\(event.offset)") }
        if members["type"] == nil, let defaultType { members["type"] = .string(defaultType) }
        if let data = content.data {
            if let json = try? JSON(parsing: data) {
                members["data"] = json
            } else {
                members["data_base64"] = .string(Data(data).base64EncodedString())
            }
        }
        return .object(members)
    }
}
