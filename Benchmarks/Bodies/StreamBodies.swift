import Base
import Foundation

/// The work that the figures of streams measure.
package enum StreamBodies {
    private static let carrier = 0
    private static let delay = 1

    /// Events per second from which one thread picks carrier and delay, both decoded.
    package static func project(_ payloads: [[UInt8]], rounds: Int) throws -> (perSecond: Double, checked: Double) {
        var projection = try JSONProjection([["carrier"], ["dep_delay"]])
        var sum = 0.0
        var carriers = 0
        let elapsed = try LogBodies.seconds {
            for _ in 0..<rounds {
                for payload in payloads {
                    try payload.withUnsafeBytes { raw in
                        try projection.project(raw)
                        carriers += projection.slot(carrier).bytes(in: raw).count
                        sum += projection.slot(delay).double(in: raw) ?? 0
                    }
                }
            }
        }
        return (Double(payloads.count * rounds) / elapsed, sum + Double(carriers))
    }

    /// The same by way of the whole document.
    package static func parse(_ payloads: [[UInt8]], rounds: Int) throws -> (perSecond: Double, checked: Double) {
        let document = JSONDocument()
        let (carrier, delay) = (JSONKey("carrier"), JSONKey("dep_delay"))
        var sum = 0.0
        var carriers = 0
        let elapsed = try LogBodies.seconds {
            for _ in 0..<rounds {
                for payload in payloads {
                    try document.parse(payload)
                    carriers += document.member(0, carrier).map { document.raw($0).count } ?? 0
                    sum += document.member(0, delay).flatMap { document.double($0) } ?? 0
                }
            }
        }
        return (Double(payloads.count * rounds) / elapsed, sum + Double(carriers))
    }
}
