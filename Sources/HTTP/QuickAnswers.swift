import Foundation
import HTTPTypes
import NIOCore
import NIOHTTPTypes

/// Answers requests where they are read, on the thread of the connection's event loop: no task, no queue and no other thread
/// takes part. What is not answered here, because its path is another, its body is large or the answer is not at hand, goes
/// on to the routes. One a connection; it lives on the connection's event loop.
final class QuickAnswers: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart
    /// nil where the routes must answer.
    typealias Answer = @Sendable (WebRequest) -> WebResponse?

    /// Bytes of a body that is answered here.
    static let bodyLimit = 64 << 10

    /// By path and method.
    private let answers: [String: [String: Answer]]
    /// Requests that the routes have not answered yet: answers go out in the order of their requests.
    private var underWay = 0
    private var waiting: (head: HTTPRequest, answer: Answer)?
    private var body = ByteBuffer()
    private var dated = (second: time_t(0), text: "")

    init(_ answers: [String: [String: Answer]]) { self.answers = answers }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            // Who does not read the answers is not asked on: the routes' way makes him wait.
            if underWay == 0, context.channel.isWritable, let answer = answer(to: head) {
                waiting = (head, answer)
                body.clear()
            } else {
                underWay += 1
                context.fireChannelRead(data)
            }
        case .body(let part):
            guard waiting != nil else { return context.fireChannelRead(data) }
            if body.readableBytes == 0 { body = part } else { body.writeImmutableBuffer(part) }
            if body.readableBytes > Self.bodyLimit { passOn(context) }
        case .end:
            guard let (head, answer) = waiting else { return context.fireChannelRead(data) }
            let request = WebRequest(head, Array(body.readableBytesView))
            guard let given = answer(request), case .bytes(let bytes) = given.body else {
                passOn(context)
                return context.fireChannelRead(data)
            }
            waiting = nil
            write(given, bytes, context)
        }
    }

    /// One that asks for something beside the answer (its connection's end, a word before its body) is none of ours.
    private func answer(to head: HTTPRequest) -> Answer? {
        guard let path = head.path, let answer = answers[path]?[head.method.rawValue] else { return nil }
        for field in head.headerFields {
            switch field.name {
            case .connection where field.value.lowercased() != "keep-alive": return nil
            case .expect: return nil
            case .contentLength where Int(field.value) ?? .max > Self.bodyLimit: return nil
            default: continue
            }
        }
        return answer
    }

    private func passOn(_ context: ChannelHandlerContext) {
        guard let (head, _) = waiting else { return }
        waiting = nil
        underWay += 1
        context.fireChannelRead(wrapInboundOut(.head(head)))
        if body.readableBytes > 0 { context.fireChannelRead(wrapInboundOut(.body(body))) }
        body = ByteBuffer()
    }

    /// Of the answer, as RFC 9110 writes it; worked out once a second.
    private func date() -> String {
        var now = time(nil)
        guard now != dated.second else { return dated.text }
        var parts = tm()
        var text = [CChar](repeating: 0, count: 40)
        gmtime_r(&now, &parts)
        let count = strftime(&text, text.count, "%a, %d %b %Y %H:%M:%S GMT", &parts)
        dated = (now, String(decoding: text[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self))
        return dated.text
    }

    private func write(_ given: WebResponse, _ bytes: [UInt8], _ context: ChannelHandlerContext) {
        var fields = HTTPFields()
        fields[.contentType] = given.contentType
        fields[.contentLength] = "\(bytes.count)"
        fields[.date] = date()
        for (name, value) in given.headers { if let field = HTTPField.Name(name) { fields[field] = value } }
        let head = HTTPResponse(status: .init(code: given.status), headerFields: fields)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.write(wrapOutboundOut(.body(context.channel.allocator.buffer(bytes: bytes))), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        if case .end = unwrapOutboundIn(data) { underWay = max(0, underWay - 1) }
        context.write(data, promise: promise)
    }
}
