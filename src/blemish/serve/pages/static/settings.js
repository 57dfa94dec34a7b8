// Settings of products, people and webhooks.
import { api } from "./api.js";
import { act, all, notice, one, settingsOf } from "./dom.js";

for (const form of all("[data-change]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(one("button", form), async () => {
      const audit_share = Number(new FormData(form).get("audit_share")) / 100;
      await api.changeProduct(form.dataset.change, { ...settingsOf(form), audit_share });
      notice("Saved.");
    });
  });
}

one("#user").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target, given = new FormData(form);
  act(one("button", form), async () => {
    const made = await api.addUser(given.get("name"), given.get("role"));
    one("#token").hidden = false;
    one("#token-name").textContent = made.name;
    one("#token-text").textContent = made.token;
    one("#token-next").textContent = all("[data-user]").length ? "Reload the page to see the new list." : "From now on every page asks for a token: sign in with this one.";
    one("#token-text").focus();
    form.reset();
  });
});

for (const button of all("[data-user]")) {
  button.addEventListener("click", () => {
    if (confirm(`Remove ${button.dataset.user}? Their token ends at once.`)) {
      act(button, async () => {
        await api.removeUser(button.dataset.user);
        location.reload();
      });
    }
  });
}

one("#hook").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target, given = new FormData(form);
  act(one("button", form), async () => {
    await api.addWebhook({ url: given.get("url"), product: given.get("product"), verdicts: given.get("verdicts").split(",").filter(Boolean) });
    location.reload();
  });
});

for (const button of all("[data-hook]")) {
  button.addEventListener("click", () => act(button, async () => {
    await api.removeWebhook(button.dataset.hook);
    location.reload();
  }));
}
