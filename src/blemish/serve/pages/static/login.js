// Gives the token for a session cookie.
import { api } from "./api.js";
import { act, one } from "./dom.js";

const form = one("#login");
form.addEventListener("submit", (event) => {
  event.preventDefault();
  act(one("button", form), async () => {
    await api.login(new FormData(form).get("token"));
    location.assign(form.dataset.next);
  });
});
