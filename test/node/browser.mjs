// A person at a browser, as far as a login needs one: it follows redirects with
// cookies, fills in a form and submits it. It ends where the login's client is.
import assert from "node:assert/strict";

export class Browser {
  cookies = new Map(); // by origin
  seen = [];

  // end is the client's own redirect URI: an address that begins so is not opened.
  constructor(end) {
    this.end = end;
  }

  async open(target, form) {
    for (let n = 0; n < 20; n++) {
      if (target.startsWith(this.end + "?")) return { end: new URL(target) };
      const at = new URL(target);
      const answer = await fetch(target, {
        method: form ? "POST" : "GET",
        redirect: "manual",
        headers: { cookie: [...(this.cookies.get(at.origin) ?? new Map())].map(([k, v]) => `${k}=${v}`).join("; "), ...(form && { origin: at.origin }) },
        body: form && new URLSearchParams(form),
      });
      for (const line of answer.headers.getSetCookie()) {
        const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
        if (!this.cookies.has(at.origin)) this.cookies.set(at.origin, new Map());
        this.cookies.get(at.origin).set(name, value);
      }
      this.seen.push(`${answer.status} ${at.pathname}`);
      if (answer.status >= 300 && answer.status < 400) {
        target = new URL(answer.headers.get("location"), at).href;
        form = undefined;
        continue;
      }
      const html = await answer.text();
      assert.equal(answer.status, 200, `${at.href}: ${html}`);
      return { page: html, at, headers: answer.headers };
    }
    assert.fail("too many redirects: " + this.seen.join(", "));
  }

  // submit sends a page's form with these fields.
  submit({ page, at }, fields) {
    const text = (s) => s.replaceAll("&#39;", "'").replaceAll("&#34;", '"').replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
    const action = text(/<form[^>]*action="([^"]*)"/.exec(page)[1]);
    const hidden = [...page.matchAll(/<input type="hidden" name="([^"]*)" value="([^"]*)"/g)].map(([, k, v]) => [k, text(v)]);
    return this.open(new URL(action, at).href, { ...Object.fromEntries(hidden), ...fields });
  }
}
